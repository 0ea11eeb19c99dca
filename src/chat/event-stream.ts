import { once } from "node:events";
import type { FastifyReply } from "fastify";
import { ChatError } from "./chat-error.ts";

/** A reader that takes nothing for this long has gone, or is to be thought gone. */
const slowReaderMs = 60_000;
/** Handed to the socket at once: how much of more than that was taken would not be seen. */
const sliceBytes = 64 * 1024;

/**
 * The stop switch of a call, pulled when its caller leaves before the answer is whole.
 */
export function stopWhenGone(reply: FastifyReply): AbortController {
  const stop = new AbortController();
  const leave = () => {
    if (!reply.raw.writableFinished) stop.abort(gone());
  };
  if (reply.raw.destroyed) leave();
  else reply.raw.once("close", leave);
  return stop;
}

/** A stream of server-sent events that the server has taken over from Fastify. */
export interface EventStream {
  readonly write: (text: string) => Promise<void> | undefined;
  readonly end: (text: string) => void;
}

/** Sends the headers, those set so far included. */
export function openEventStream(reply: FastifyReply, stop: AbortController): EventStream {
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    // A proxy that gathers the answer before passing it on would undo the streaming.
    "x-accel-buffering": "no",
  });
  return {
    write: (text) => {
      if (text.length > sliceBytes) return writeInSlices(Buffer.from(text), raw, stop);
      return raw.write(text) ? undefined : drained(raw, stop);
    },
    end: (text) => void raw.end(text),
  };
}

async function writeInSlices(bytes: Buffer, raw: FastifyReply["raw"], stop: AbortController): Promise<void> {
  for (let from = 0; from < bytes.length; from += sliceBytes) {
    if (!raw.write(bytes.subarray(from, from + sliceBytes))) await drained(raw, stop);
  }
}

async function drained(raw: FastifyReply["raw"], stop: AbortController): Promise<void> {
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(slowReaderMs)]);
  await once(raw, "drain", { signal }).catch(() => {
    raw.destroy();
    throw stop.signal.aborted ? stop.signal.reason : gone();
  });
}

function gone(): ChatError {
  return new ChatError("client-gone", "The caller left before the answer was whole.");
}

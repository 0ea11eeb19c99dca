import type { FastifyReply, FastifyRequest } from "fastify";
import { logProblem } from "../../http/app.ts";
import { type ProblemBody, toProblem } from "../../http/problem.ts";
import type { RouteParts } from "../app.ts";
import { overheadMs } from "../call-metrics.ts";
import type { Answer, Call, Source, Timing } from "../complete.ts";
import type { Head } from "../completion.ts";
import { type EventStream, openEventStream } from "../event-stream.ts";
import type { Delta } from "../lm-studio/reasoning.ts";
import { setAnsweringModel } from "./answering-model.ts";

/** How one route words its stream. */
export interface Wording {
  readonly delta: (delta: Delta) => string;
  /** Everything after the last delta: sent only once the interaction is on disk. */
  readonly end: (answer: Answer) => string;
}

/**
 * Answers as a stream. Whatever goes wrong before the first delta is an ordinary error answer, with its
 * status; after that it is an error event, and the stream ends without the event that marks a whole answer.
 * The connection itself is closed properly then: broken off, many clients would drop the error event unread.
 */
export async function streamAnswer(
  request: FastifyRequest,
  reply: FastifyReply,
  { complete, statusOf }: RouteParts,
  call: Call,
  wordingFor: (head: Head) => Wording,
  errorEvent: (problem: ProblemBody) => string,
): Promise<FastifyReply> {
  let open: { readonly stream: EventStream; readonly wording: Wording } | undefined;
  try {
    const answer = await complete(call, {
      begin: (head, source, timing) => {
        setProvenance(reply, source, timing);
        setAnsweringModel(reply, call.body.model, head.model);
        open = { stream: openEventStream(reply, call.stop), wording: wordingFor(head) };
      },
      deltas: (deltas) => open?.stream.write(deltas.map((delta) => open?.wording.delta(delta)).join("")),
    });
    open?.stream.end(open.wording.end(answer));
  } catch (error) {
    if (!open) throw error;
    const problem = toProblem(error, request.id, statusOf);
    logProblem(error, request, problem);
    open.stream.end(errorEvent(problem));
  }
  return reply;
}

/** Says in the headers where an answer comes from, and what its time went into (milliseconds). */
export function setProvenance(reply: FastifyReply, { cache, ageS }: Source, timing: Timing): void {
  reply.header("x-cache", cache);
  if (ageS !== undefined) reply.header("age", String(ageS));
  const { queuedMs, firstTokenMs, upstreamMs, logMs, totalMs } = timing;
  let text = "";
  if (queuedMs !== undefined) text += `queue;dur=${queuedMs.toFixed(2)}, `;
  if (firstTokenMs !== undefined) text += `first-token;dur=${firstTokenMs.toFixed(2)}, `;
  if (upstreamMs !== undefined) text += `upstream;dur=${upstreamMs.toFixed(2)}, `;
  if (logMs !== undefined) text += `log;dur=${logMs.toFixed(2)}, `;
  reply.header(
    "server-timing",
    `${text}overhead;dur=${overheadMs(timing).toFixed(2)}, total;dur=${totalMs.toFixed(2)}`,
  );
}

import http from "node:http";
import https from "node:https";
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { ActiveProbe } from "./definition.ts";
import { messageOf } from "./process-manager-error.ts";

const answerBytesMax = 2_000;

/** Asks once. Rejects with the reason when the answer is bad, late, or the signal aborts. */
export async function askProbe(probe: ActiveProbe, signal: AbortSignal): Promise<void> {
  const timeoutMs = probe.timeoutMs ?? 1_000;
  const deadline = AbortSignal.timeout(timeoutMs);
  const either = AbortSignal.any([signal, deadline]);
  try {
    if (probe.kind === "http") await askHttp(probe.url, either);
    else if (probe.kind === "tcp") await askTcp(probe.host, probe.port, either);
    else await heeding(either, probe.check(either));
  } catch (error) {
    signal.throwIfAborted();
    if (deadline.aborted) throw new Error(`no answer within ${timeoutMs} ms`, { cause: error });
    throw error;
  }
}

/** Polls until the probe has passed as often as it must; 20 ms apart at first, growing to its period. */
export async function untilPasses(
  probe: ActiveProbe,
  signal: AbortSignal,
  onFailure: (reason: string) => void,
): Promise<void> {
  await delay(probe.initialDelayMs ?? 0, undefined, { signal });
  let pauseMs = 20;
  for (let passes = 0; passes < (probe.successThreshold ?? 1); ) {
    try {
      await askProbe(probe, signal);
      passes += 1;
    } catch (error) {
      signal.throwIfAborted();
      passes = 0;
      onFailure(messageOf(error));
    }
    if (passes >= (probe.successThreshold ?? 1)) return;
    await delay(pauseMs, undefined, { signal });
    pauseMs = Math.min(pauseMs * 1.5, probe.periodMs ?? 2_000);
  }
}

/** What a watched probe tells: only turns from good to bad and back. */
export interface ProbeWatcher {
  readonly onGood: () => void;
  readonly onBad: (reason: string) => void;
}

/** Asks every period until the signal aborts, and tells when enough answers in a row changed the picture. */
export async function watchProbe(
  probe: ActiveProbe,
  isGood: boolean,
  watcher: ProbeWatcher,
  signal: AbortSignal,
): Promise<void> {
  const { periodMs = 2_000, successThreshold = 1, failureThreshold = 3 } = probe;
  let good = isGood;
  let inARow = 0; // answers that contradict the picture
  while (!signal.aborted) {
    const reason = await failureOf(askProbe(probe, signal));
    if (signal.aborted) return;
    inARow = (reason === null) === good ? 0 : inARow + 1;
    if (inARow >= (good ? failureThreshold : successThreshold)) {
      good = !good;
      inARow = 0;
      if (reason === null) watcher.onGood();
      else watcher.onBad(reason);
    }
    await delay(periodMs, undefined, { signal }).catch(() => undefined);
  }
}

async function failureOf(answer: Promise<void>): Promise<string | null> {
  return await answer.then(
    () => null,
    (error: unknown) => messageOf(error),
  );
}

function askHttp(url: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const module = url.startsWith("https:") ? https : http;
    // No agent: a kept connection would be answered by a process that no longer takes new ones.
    const request = module.get(url, { agent: false, headers: { connection: "close" }, signal });
    request.on("error", reject);
    request.on("response", (response) => {
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 400) {
        response.resume();
        response.on("end", resolve).on("error", reject);
        return;
      }
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => {
        if (body.length < answerBytesMax) body += text;
      });
      response.on("error", reject);
      response.on("end", () => reject(new Error(`answered ${status}${detailOf(body)}`)));
    });
  });
}

/** The `detail` of a problem+json body: it names what is away. */
function detailOf(body: string): string {
  try {
    const parsed: unknown = JSON.parse(body);
    const detail = typeof parsed === "object" && parsed !== null && "detail" in parsed ? parsed.detail : null;
    return typeof detail === "string" ? `: ${detail}` : "";
  } catch {
    return "";
  }
}

function askTcp(host: string, port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, signal });
    socket.on("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.on("error", reject);
  });
}

/** A check that does not heed its signal must not hold us up. */
async function heeding(signal: AbortSignal, work: Promise<void>): Promise<void> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

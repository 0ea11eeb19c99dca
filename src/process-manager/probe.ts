import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { ActiveProbe } from "./definition.ts";
import { askExec, type ProbeContext } from "./exec-probe.ts";
import { http } from "./http-module.ts";
import { messageOf } from "./process-manager-error.ts";

const answerCharactersMax = 64 * 1024;

/** Asks once. Rejects with the reason when the answer is bad, late, or the signal aborts. */
export async function askProbe(
  probe: ActiveProbe,
  context: ProbeContext,
  signal: AbortSignal,
): Promise<void> {
  const timeoutMs = probe.timeoutMs ?? 1_000;
  const deadline = AbortSignal.timeout(timeoutMs);
  const either = AbortSignal.any([signal, deadline]);
  try {
    await heeding(either, ask(probe, context, either));
  } catch (error) {
    signal.throwIfAborted();
    if (deadline.aborted) throw new Error(`no answer within ${timeoutMs} ms`, { cause: error });
    throw error;
  }
}

async function ask(probe: ActiveProbe, context: ProbeContext, signal: AbortSignal): Promise<void> {
  if (probe.kind === "http") await askHttp(probe, signal);
  else if (probe.kind === "tcp") await askTcp(probe.host ?? "127.0.0.1", probe.port ?? 0, signal);
  else if (probe.kind === "exec") await askExec(probe.command, context, signal);
  else await probe.check(signal);
}

/** Polls until the probe has passed as often as it must; 20 ms apart at first, growing to its period. */
export async function untilPasses(
  probe: ActiveProbe,
  context: ProbeContext,
  signal: AbortSignal,
  onFailure: (reason: string) => void,
): Promise<void> {
  await delay(probe.initialDelayMs ?? 0, undefined, { signal });
  let pauseMs = 20;
  for (let passes = 0; passes < (probe.successThreshold ?? 1); ) {
    try {
      await askProbe(probe, context, signal);
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
  context: ProbeContext,
  isGood: boolean,
  watcher: ProbeWatcher,
  signal: AbortSignal,
): Promise<void> {
  const { periodMs = 2_000, successThreshold = 1, failureThreshold = 3 } = probe;
  let good = isGood;
  let inARow = 0; // answers that contradict the picture
  while (!signal.aborted) {
    const askedAt = performance.now();
    const reason = await failureOf(askProbe(probe, context, signal));
    if (signal.aborted) return;
    inARow = (reason === null) === good ? 0 : inARow + 1;
    if (inARow >= (good ? failureThreshold : successThreshold)) {
      good = !good;
      inARow = 0;
      if (reason === null) watcher.onGood();
      else watcher.onBad(reason);
    }
    // From try to try, not from answer to try: three silent seconds are three failures.
    const restMs = Math.max(0, periodMs - (performance.now() - askedAt));
    await delay(restMs, undefined, { signal }).catch(() => undefined);
  }
}

async function failureOf(answer: Promise<void>): Promise<string | null> {
  return await answer.then(
    () => null,
    (error: unknown) => messageOf(error),
  );
}

async function askHttp(probe: HttpProbe, signal: AbortSignal): Promise<void> {
  const { status, body } = await fetchAnswer(probe, signal);
  const isWanted = probe.status ? probe.status.includes(status) : status >= 200 && status < 400;
  if (!isWanted) throw new Error(`answered ${status}${detailOf(body)}`);
  if (probe.body !== undefined && !new RegExp(probe.body).test(body))
    throw new Error(`answered ${status} with a body that does not match ${probe.body}`);
}

function fetchAnswer(probe: HttpProbe, signal: AbortSignal): Promise<{ status: number; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  const module = probe.url.startsWith("https:") ? process.getBuiltinModule("node:https") : http;
  // No agent: a kept connection would be answered by a process that no longer takes new ones.
  const headers = { connection: "close", ...probe.headers };
  const request = module.get(probe.url, { agent: false, headers, signal });
  request.on("error", reject);
  request.on("response", (response) => {
    let body = "";
    response.setEncoding("utf8").on("data", (text: string) => {
      if (body.length < answerCharactersMax) body += text;
    });
    response.on("error", reject);
    response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
  });
  return promise;
}

type HttpProbe = Extract<ActiveProbe, { kind: "http" }>;

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

/** What does not heed its signal must not hold us up: a check, or a request that was answered with another protocol. */
async function heeding(signal: AbortSignal, work: Promise<void>): Promise<void> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

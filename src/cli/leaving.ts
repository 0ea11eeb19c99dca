import { fail } from "./failure.ts";

/** Ctrl+C reaches us from the terminal and once more from npm: what comes this close is one wish. */
export const oneWishMs = 400;
/** What a command exits with that Ctrl+C ended, as shells have it. */
export const exitInterrupted = 130;

/** Aborts at Ctrl+C, so that nothing half-made stays; once more ends the process at once. */
export function untilInterrupted(): AbortSignal {
  const interrupted = new AbortController();
  let firstAt = Number.POSITIVE_INFINITY;
  process.on("SIGINT", () => {
    const now = performance.now();
    if (now - firstAt > oneWishMs) process.exit(exitInterrupted);
    firstAt = Math.min(firstAt, now);
    interrupted.abort();
  });
  return interrupted.signal;
}

/**
 * Whoever reads what is printed may leave, as `head` and a closed terminal do: the command goes on with what it does
 * beside printing, and gives its own exit code. What else cannot be written, as on a full disk, ends it.
 */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", endUnlessNobodyReads);
}

/** For what goes on whatever becomes of its output. */
export function outliveOutput(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.off("error", endUnlessNobodyReads).on("error", () => {});
}

/** Aborts when whoever read what is written there has left. */
export function untilNobodyReads(out: NodeJS.WritableStream): AbortSignal {
  const left = new AbortController();
  out.once("error", () => left.abort());
  return left.signal;
}

/** Whether an error of a stream says that nobody reads it any more: a pipe's other end is closed, a terminal is gone. */
export function isUnread({ code }: NodeJS.ErrnoException): boolean {
  return code === "EPIPE" || code === "EIO";
}

function endUnlessNobodyReads(error: Error): void {
  if (!isUnread(error)) process.exit(fail([`what is printed cannot be written: ${error.message}`], 1));
}

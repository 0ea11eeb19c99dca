import { fail } from "./failure.ts";

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

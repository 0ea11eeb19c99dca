import type { ProcessManager } from "../process-manager.ts";
import { systemCodeOf } from "../process-manager-error.ts";
import { askProgram } from "./program.ts";

/** Clients of a port, one at each event of the manager, until told to stop. */
export class Visit {
  readonly #port: number;
  readonly #refusals: string[] = [];
  readonly #asked: Promise<void>[] = [];
  readonly #leave: () => void;

  constructor(manager: ProcessManager, port: number) {
    this.#port = port;
    this.#leave = manager.onEvent(() => this.#ask());
    this.#ask();
  }

  /** How they were turned away; to be cut off by a process that is killed is not that. */
  async end(): Promise<readonly string[]> {
    this.#leave();
    await Promise.all(this.#asked);
    return this.#refusals;
  }

  #ask(): void {
    const answer = askProgram({ port: this.#port }, "/who").then(
      () => undefined,
      (error: unknown) => {
        if (systemCodeOf(error) !== "ECONNRESET") this.#refusals.push(String(error));
      },
    );
    this.#asked.push(answer);
  }
}

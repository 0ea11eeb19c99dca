import { messageOf } from "./process-manager-error.ts";
import type { ResolvedService } from "./resolve-definitions.ts";

/** What a service's upkeep needs of the manager. */
export interface UpkeepParts {
  readonly home: string;
  readonly restart: (why: string) => Promise<void>;
  /** Tells what it could not do. */
  readonly complain: (text: string) => void;
}

/** Restarts for changed files within a minute after which the watching is what is wrong. */
const watchRestartsMax = 30;

/** Restarts a service for what its process would not end of: a changed file. */
export class Upkeep {
  readonly #parts: UpkeepParts;
  #watch: Promise<() => Promise<void>> | null = null;
  #restartedAt: number[] = [];

  constructor(parts: UpkeepParts) {
    this.#parts = parts;
  }

  get isGoing(): boolean {
    return this.#watch !== null;
  }

  /** Watches what the definition says, and nothing that an earlier one said. */
  begin(definition: ResolvedService): void {
    void this.end();
    const { watch, cwd } = definition;
    if (!watch) return;
    this.#watch = import("./file-watch.ts").then(({ watchFiles }) =>
      watchFiles(watch, cwd, this.#parts.home, (path) => void this.#changed(path)),
    );
    this.#watch.catch((error: unknown) =>
      this.#parts.complain(`cannot watch its files: ${messageOf(error)}`),
    );
  }

  /** Resolves when every watched file is being watched. */
  async watching(): Promise<void> {
    await this.#watch;
  }

  async end(): Promise<void> {
    const stop = this.#watch?.catch(() => undefined);
    this.#watch = null;
    await (await stop)?.();
  }

  async #changed(path: string): Promise<void> {
    const now = Date.now();
    this.#restartedAt = [...this.#restartedAt.filter((at) => now - at < 60_000), now];
    if (this.#restartedAt.length > watchRestartsMax) {
      await this.end();
      this.#parts.complain(
        `its files changed ${watchRestartsMax} times within a minute, last ${path}: they are watched no more, for it may write them itself`,
      );
      return;
    }
    await this.#parts
      .restart(`${path} changed`)
      .catch((error: unknown) => this.#parts.complain(messageOf(error)));
  }
}

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { removePart, turnParts } from "./log-parts.ts";

/** The folder of all logs, which together are to take no more than so much of the disk. */
export class LogFolder {
  readonly #path: string;
  readonly #bytesMax: number;
  /** One log is turned at a time: who removes old files of others must not meet them on the move. */
  #turning: Promise<unknown> = Promise.resolve();

  constructor(path: string, bytesMax: number) {
    this.#path = path;
    this.#bytesMax = bytesMax;
  }

  /** Makes room for a new current file of a log, and then, where all logs have grown too large, removes old ones. */
  async turn(path: string, kept: number): Promise<void> {
    const turned = this.#turning.then(async () => {
      await turnParts(path, kept);
      await this.#removeOldest();
    });
    this.#turning = turned.catch(() => undefined);
    await turned;
  }

  /** Of any log, and never one that is being written. */
  async #removeOldest(): Promise<void> {
    const names = await readdir(this.#path);
    const files = await Promise.all(
      names.map(async (name) => {
        const status = await stat(join(this.#path, name)).catch(() => null); // gone meanwhile
        return { name, size: status?.size ?? 0, changedAtMs: status?.mtimeMs ?? 0 };
      }),
    );
    const sizes = new Map(files.map(({ name, size }) => [name, size]));
    let bytes = files.reduce((sum, { size }) => sum + size, 0);
    const old = files.filter(({ name }) => /\.log\.\d+$/.test(name));
    for (const { name, size } of old.sort((a, b) => a.changedAtMs - b.changedAtMs)) {
      if (bytes <= this.#bytesMax) return;
      await removePart(join(this.#path, name));
      bytes -= size + (sizes.get(`${name}.index`) ?? 0);
    }
  }
}

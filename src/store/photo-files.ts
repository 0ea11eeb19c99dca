import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { diskTrouble, StoreError } from "./errors.ts";

/** A file that is on disk, and under its own name once it is placed. */
export interface WaitingFile extends AsyncDisposable {
  /** In one step, and for good: in place of a file of that name, if there is one. */
  readonly place: (id: string) => Promise<void>;
}

/** The folder of photos in a station's home: a file for each, named by its id. Made when first written to. */
export class PhotoFiles {
  readonly #folder: string;

  constructor(home: string) {
    this.#folder = join(home, "photos");
  }

  /**
   * Writes what is to become a file. Whatever becomes of it, it leaves nothing else once it is disposed of. Throws
   * `StoreError` `photo-unwritable`.
   */
  async write(bytes: Uint8Array): Promise<WaitingFile> {
    const temporary = join(this.#folder, `.${randomBytes(12).toString("hex")}`);
    const discard = () => rm(temporary, { force: true });
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await using file = await open(temporary, "wx", 0o600);
      await file.writeFile(bytes);
      await file.sync();
    } catch (error) {
      await discard().catch(() => {});
      throw new StoreError("photo-unwritable", `The photo cannot be kept: ${diskTrouble(error)}.`, {
        cause: error,
      });
    }
    return {
      place: async (id) => {
        await rename(temporary, join(this.#folder, id));
        await using folder = await open(this.#folder, "r");
        await folder.sync();
      },
      [Symbol.asyncDispose]: discard,
    };
  }

  /** Opens it to be read; undefined where it is not here whole. */
  async open(id: string, bytes: number): Promise<FileHandle | undefined> {
    const file = await open(join(this.#folder, id), "r").catch(unlessAbsent);
    if (file && (await file.stat()).size === bytes) return file;
    await file?.close();
    return undefined;
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.#folder, name), { force: true });
  }

  /** Names of all that is there; those that begin with a dot are of files that are being written, or never were to the end. */
  async names(): Promise<string[]> {
    return (await readdir(this.#folder).catch(unlessAbsent)) ?? [];
  }

  /** Epoch milliseconds of when it was written; undefined where it is not there. */
  async writtenAt(name: string): Promise<number | undefined> {
    return (await stat(join(this.#folder, name)).catch(unlessAbsent))?.mtimeMs;
  }
}

function unlessAbsent(error: unknown): undefined {
  if ((error as { code?: unknown }).code !== "ENOENT") throw error;
}

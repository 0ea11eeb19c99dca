import { closeSync, fdatasync, ftruncateSync, open, writeSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { v7 as uuidv7 } from "uuid";
import { diskTrouble, StoreError } from "../errors.ts";
import { frameOf } from "./frame.ts";
import { forgetLife, isAlive, showLife } from "./life-sign.ts";
import { syncFolder } from "./sync-folder.ts";

/** A file of the journal. */
export interface Segment {
  readonly path: string;
  /** Left by a process that has died. */
  readonly isAdopted: boolean;
  /** Bytes that are on disk for good; more are not to be read. */
  bytes: number;
  /** Bytes that somebody has taken over. */
  takenBytes: number;
  /** Items that nobody has taken over yet; 0 where an earlier process counted them. */
  items: number;
  /** Since when the oldest of what nobody has taken over is waiting, milliseconds since 1970; at the earliest. */
  since: number;
  /** Nothing more will be written to it. */
  isClosed: boolean;
  /** It holds what could not be read, and is kept for people to look at. */
  isDamaged: boolean;
}

/** What the encoder may remember of a segment: which values it holds already, each under its number. */
export interface Written {
  readonly numbers: WeakMap<object, number>;
  count: number;
}

export interface JournalLog {
  readonly info: (fields: object, message: string) => void;
  readonly warn: (fields: object, message: string) => void;
}

export interface JournalOptions<Item> {
  readonly folder: string;
  /** Whole lines for the item, to be appended to the segment of which `written` tells. */
  readonly encode: (item: Item, written: Written) => string;
  /** Called when more is on disk. */
  readonly onDurable: () => void;
  readonly log: JournalLog;
  /** Bytes on disk past which nothing more is taken. Default 1 GiB. */
  readonly bytesMax?: number | undefined;
}

/** Bytes after which the next segment begins: what a reader keeps of one is bounded by this. */
const segmentBytesMax = 8 * 1024 * 1024;
/** Characters in one frame, unless a single item has more. */
const frameCharsMax = 256 * 1024;
/** Characters that may wait in memory for the disk. */
const waitingCharsMax = 64 * 1024 * 1024;

/** What is written and synced together. All who wait for it share one promise. */
interface Group {
  readonly scope: Scope;
  readonly frames: string[];
  text: string;
  items: number;
  readonly done: PromiseWithResolvers<void>;
}

/** A segment as the encoder sees it, from before its file is there. */
interface Scope extends Written {
  bytes: number;
  file: Promise<OpenFile> | undefined;
  readonly closed: PromiseWithResolvers<void>;
}

interface OpenFile {
  readonly segment: Segment;
  readonly fd: number;
  /** Where the room ends that the file has on disk. */
  allocated: number;
}

const sync = promisify(fdatasync);
const openFile = promisify(open);

/**
 * Puts items on disk in the order they come, in files that are deleted once somebody has taken over what is in
 * them. Whatever comes while one sync is under way shares the next, so that durability costs a group, not an item.
 *
 * Several processes may use one folder: each writes segments of its own, and takes over those of the dead. Nothing
 * is made in the folder before there is something to write.
 */
export class Journal<Item> implements AsyncDisposable {
  readonly #options: JournalOptions<Item>;
  readonly #bytesMax: number;
  readonly #name = uuidv7();
  readonly #segments: Segment[] = [];
  #life: Promise<AsyncDisposable> | undefined;
  #sequence = 0;
  #bytes = 0;
  #waitingChars = 0;
  #scope: Scope | undefined;
  #open: Group | undefined;
  #running: Promise<void> | undefined;
  readonly #deleting = new Set<Promise<void>>();

  constructor(options: JournalOptions<Item>) {
    this.#options = options;
    this.#bytesMax = options.bytesMax ?? 1024 ** 3;
  }

  /** Every segment, in the order in which they are to be read. */
  get segments(): readonly Segment[] {
    return this.#segments;
  }

  /** Bytes on disk. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Resolves once the item is on disk. Rejects with `StoreError` `store-busy` where there is no room left for it,
   * `journal-unwritable` where the disk refuses it.
   */
  append(item: Item): Promise<void> {
    if (this.#bytes + this.#waitingChars >= this.#bytesMax || this.#waitingChars >= waitingCharsMax) {
      return Promise.reject(
        new StoreError("store-busy", "Too much is waiting to be stored; try again in a moment."),
      );
    }
    const group = this.#open ?? this.#openGroup();
    try {
      const lines = this.#options.encode(item, group.scope);
      group.text += lines;
      group.items += 1;
      this.#waitingChars += lines.length;
    } catch (error) {
      return Promise.reject(error);
    }
    if (group.text.length >= frameCharsMax) {
      group.frames.push(group.text);
      group.text = "";
    }
    return group.done.promise;
  }

  /** Ends the segment that is being written, so that all of it can be taken over and deleted. Resolves when it is. */
  async rotate(): Promise<void> {
    const before = this.#scope;
    if (!before?.file || before.bytes === 0) return;
    this.#scope = newScope();
    if (!this.#running) await this.#close(before);
    // Made ready now, or whoever writes next would wait for it.
    await this.#fileOf(this.#scope).catch(() => undefined);
    await before.closed.promise;
  }

  /** Resolves once no file is left of the segments that were taken over. */
  async tidied(): Promise<void> {
    await Promise.all(this.#deleting);
    if (this.#life) await syncFolder(this.#options.folder);
  }

  /** Takes over what dead processes left. Resolves with the number of segments. */
  async adopt(): Promise<number> {
    const { folder, log } = this.#options;
    const names = await readdir(folder).catch(() => []);
    const left = names.filter((name) => /^[\w-]+\.\d+\.journal$/.test(name)).sort();
    const signs = names.filter((name) => name.endsWith(".sock")).map((name) => name.slice(0, -5));
    const writers = new Set([...left.map(writerOf), ...signs]);
    let adopted = 0;
    for (const writer of writers) {
      if (writer === this.#name || (await isAlive(folder, writer))) continue;
      for (const name of left) if (writerOf(name) === writer && (await this.#claim(name))) adopted += 1;
      await forgetLife(folder, writer);
    }
    if (adopted > 0) {
      log.info({ segments: adopted, bytes: this.#bytes }, "journal of an earlier process taken over");
      this.#options.onDurable();
    }
    return adopted;
  }

  /** To be told once items up to the offset `bytes` are safe elsewhere. A closed segment is deleted with its last. */
  took(
    segment: Segment,
    taken: { readonly bytes: number; readonly items: number; readonly since: number },
  ): void {
    segment.takenBytes = taken.bytes;
    segment.items = Math.max(0, segment.items - taken.items);
    segment.since = taken.since;
    if (segment.isClosed) this.#deleteIfTaken(segment);
  }

  /** Finishes what is being written. What nobody took over stays for the next process. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running;
    if (this.#scope) await this.#close(this.#scope);
    this.#scope = undefined;
    await Promise.all(this.#deleting);
    const life = await this.#life?.catch(() => undefined);
    await life?.[Symbol.asyncDispose]();
  }

  #openGroup(): Group {
    const full = this.#scope;
    if (full && full.bytes >= segmentBytesMax) {
      this.#scope = undefined;
      if (!this.#running) void this.#close(full);
    }
    this.#scope ??= newScope();
    const group = { scope: this.#scope, frames: [], text: "", items: 0, done: Promise.withResolvers<void>() };
    // Those who wait for it hear of a failure; where the encoder threw, there is nobody.
    group.done.promise.catch(() => undefined);
    this.#open = group;
    // What was read from the sockets in the same turn still makes it into this group.
    this.#running ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#run());
    return group;
  }

  async #run(): Promise<void> {
    for (let group = this.#open; group; group = this.#open) {
      this.#open = undefined;
      await this.#write(group);
      const { scope } = group;
      const isLast = !this.#waitsFor(scope);
      if (isLast && scope !== this.#scope) await this.#close(scope);
    }
    this.#running = undefined;
  }

  #waitsFor(scope: Scope): boolean {
    return this.#open?.scope === scope;
  }

  async #write({ scope, frames, text, items, done }: Group): Promise<void> {
    const texts = text === "" ? frames : [...frames, text];
    for (const { length } of texts) this.#waitingChars -= length;
    try {
      const file = await this.#fileOf(scope);
      const { segment, fd } = file;
      const bytes = writeAll(fd, texts.map(frameOf), segment.bytes);
      allocate(file, segment.bytes + bytes);
      await sync(fd);
      if (segment.takenBytes === segment.bytes) segment.since = Date.now();
      segment.items += items;
      segment.bytes += bytes;
      scope.bytes = segment.bytes;
      this.#bytes += bytes;
      done.resolve();
      this.#options.onDurable();
    } catch (cause) {
      await this.#giveUp(scope, done, unwritable(cause));
    }
  }

  /**
   * After a failed write or sync nobody knows what of it is on disk, and trying again on the same file can lie
   * (https://wiki.postgresql.org/wiki/Fsync_Errors): the segment ends where it was good. What waits may refer to
   * what was not written, so it fails with it.
   */
  async #giveUp(scope: Scope, done: Group["done"], error: StoreError): Promise<void> {
    if (this.#scope === scope) this.#scope = undefined;
    done.reject(error);
    const next = this.#open;
    if (next?.scope === scope) {
      this.#open = undefined;
      for (const { length } of [...next.frames, next.text]) this.#waitingChars -= length;
      next.done.reject(error);
    }
    try {
      const file = await scope.file;
      if (file) ftruncateSync(file.fd, file.segment.bytes);
    } catch {
      // No file, or one that cannot even be cut: then what is left is read as its torn end.
    }
  }

  async #close(scope: Scope): Promise<void> {
    const { file } = scope;
    scope.file = undefined;
    const { segment, fd } = (await file?.catch(() => undefined)) ?? {};
    if (segment && fd !== undefined) {
      try {
        closeSync(fd);
      } catch {
        // All that counts was synced before.
      }
      segment.isClosed = true;
      this.#deleteIfTaken(segment);
    }
    scope.closed.resolve();
  }

  #deleteIfTaken(segment: Segment): void {
    if (segment.takenBytes < segment.bytes || !this.#segments.includes(segment)) return;
    this.#segments.splice(this.#segments.indexOf(segment), 1);
    this.#bytes -= segment.bytes;
    const { path } = segment;
    const deleted = segment.isDamaged ? rename(path, `${path}.damaged`) : rm(path, { force: true });
    // A file that cannot be deleted is read once more by the next process, which does no harm.
    const done = deleted.catch((error: unknown) =>
      this.#options.log.warn({ err: error, segment: path }, "journal not deleted"),
    );
    this.#deleting.add(done);
    done.finally(() => this.#deleting.delete(done));
  }

  #fileOf(scope: Scope): Promise<OpenFile> {
    scope.file ??= this.#create().catch((error: unknown) => {
      // Whoever writes next tries again.
      scope.file = undefined;
      throw error;
    });
    return scope.file;
  }

  async #create(): Promise<OpenFile> {
    await this.#moveIn();
    const path = this.#nextPath();
    const fd = await openFile(path, "wx", 0o600);
    await syncFolder(this.#options.folder);
    const segment = segmentAt(path, { isAdopted: false, bytes: 0, since: Date.now() });
    this.#segments.push(segment);
    return { segment, fd, allocated: 0 };
  }

  /** A segment is the adopter's as soon as it has its name: of two that try, one finds nothing to rename. */
  async #claim(name: string): Promise<boolean> {
    await this.#moveIn();
    const path = this.#nextPath();
    try {
      await rename(join(this.#options.folder, name), path);
    } catch {
      return false;
    }
    const { size, birthtimeMs } = await stat(path);
    const segment = segmentAt(path, { isAdopted: true, bytes: size, since: birthtimeMs });
    this.#segments.push(segment);
    this.#bytes += size;
    this.#deleteIfTaken(segment);
    return true;
  }

  #moveIn(): Promise<AsyncDisposable> {
    const { folder } = this.#options;
    this.#life ??= mkdir(folder, { recursive: true, mode: 0o700 }).then(() => showLife(folder, this.#name));
    this.#life.catch(() => {
      this.#life = undefined;
    });
    return this.#life;
  }

  #nextPath(): string {
    this.#sequence += 1;
    return join(this.#options.folder, `${this.#name}.${String(this.#sequence).padStart(8, "0")}.journal`);
  }
}

function segmentAt(
  path: string,
  { isAdopted, bytes, since }: Pick<Segment, "isAdopted" | "bytes" | "since">,
): Segment {
  return { path, isAdopted, bytes, takenBytes: 0, items: 0, since, isClosed: isAdopted, isDamaged: false };
}

function newScope(): Scope {
  return { numbers: new WeakMap(), count: 0, bytes: 0, file: undefined, closed: Promise.withResolvers() };
}

function writerOf(name: string): string {
  return name.slice(0, name.indexOf("."));
}

/**
 * Writes to the page cache, which takes microseconds: a trip through the thread pool would cost more. Gives the bytes.
 */
function writeAll(fd: number, frames: readonly Buffer[], position: number): number {
  const [first] = frames;
  const bytes = frames.length === 1 && first ? first : Buffer.concat(frames);
  for (let written = 0; written < bytes.length; ) {
    written += writeSync(fd, bytes, written, bytes.length - written, position + written);
  }
  return bytes.length;
}

/**
 * Has some room after what is written, so that most syncs find the file as long as it was: to put a new length on disk
 * as well takes a half more time. What is not used reads as zeros, and is no damage.
 */
function allocate(file: OpenFile, written: number): void {
  if (written < file.allocated) return;
  try {
    file.allocated = written + writeSync(file.fd, zeros, 0, zeros.length, written);
  } catch {
    // A disk that is full will say so when there is something to write.
  }
}

const zeros = Buffer.alloc(256 * 1024);

function unwritable(cause: unknown): StoreError {
  return new StoreError("journal-unwritable", `Nothing can be put on record: ${diskTrouble(cause)}.`, {
    cause,
  });
}

import { v7 as uuidv7 } from "uuid";
import { type Client, type Pool, query, transaction } from "./pool.ts";

/** A file that somebody handed in, or that was made for them, without its bytes. */
export interface StoredFile {
  readonly id: string;
  readonly filename: string;
  readonly purpose: string;
  readonly bytes: number;
  readonly created_at: Date;
  readonly expires_at: Date | null;
}

export interface FileFilter {
  readonly caller: string;
  readonly purpose?: string | undefined;
  readonly order: "asc" | "desc";
  /** Only those that follow this one in the order. */
  readonly after?: string | undefined;
  readonly limit: number;
}

/** Bytes of one row: large enough that rows are few, small enough that one is nothing in memory. */
const chunkBytes = 1024 * 1024;
/** An upload that has not ended by then has broken off: a request may take two minutes. */
const uploadMaxMinutes = 10;

const shown = "id, filename, purpose, bytes::float8 as bytes, created_at, expires_at";
const isThere = "is_whole and (expires_at is null or expires_at > $1)";

/**
 * Writes a new file piece by piece, without ever holding it whole, and without a transaction that would keep
 * a connection for as long as its bytes take to come: until `finish` nobody sees it.
 */
export class FileWriter {
  readonly id = newFileId();
  readonly #runner: Pool | Client;
  #pieces: Uint8Array[] = [];
  #waiting = 0;
  #chunks = 0;
  #bytes = 0;

  private constructor(runner: Pool | Client) {
    this.#runner = runner;
  }

  static async open(runner: Pool | Client, caller: string, createdAt: Date): Promise<FileWriter> {
    const writer = new FileWriter(runner);
    await query(
      runner,
      `insert into files (id, caller, filename, purpose, bytes, created_at, is_whole)
       values ($1, $2, '', '', 0, $3, false)`,
      [writer.id, caller, createdAt],
    );
    return writer;
  }

  get bytes(): number {
    return this.#bytes;
  }

  async write(piece: Uint8Array): Promise<void> {
    this.#pieces.push(piece);
    this.#waiting += piece.length;
    this.#bytes += piece.length;
    if (this.#waiting >= chunkBytes) await this.#flush();
  }

  /** Makes the file one that is there. */
  async finish(file: {
    readonly filename: string;
    readonly purpose: string;
    readonly expiresAt?: Date | undefined;
  }): Promise<StoredFile> {
    await this.#flush();
    const { rows } = await query<StoredFile>(
      this.#runner,
      `update files set filename = $2, purpose = $3, bytes = $4, expires_at = $5, is_whole = true
       where id = $1 returning ${shown}`,
      [this.id, file.filename, file.purpose, this.#bytes, file.expiresAt ?? null],
    );
    return rows[0] as StoredFile;
  }

  /** Leaves nothing of it. */
  async discard(): Promise<void> {
    await query(this.#runner, "delete from files where id = $1", [this.id]);
  }

  async #flush(): Promise<void> {
    if (this.#waiting === 0) return;
    const content = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#waiting = 0;
    await query(this.#runner, "insert into file_chunks (file_id, index, content) values ($1, $2, $3)", [
      this.id,
      this.#chunks,
      content,
    ]);
    this.#chunks += 1;
  }
}

/** "file-" and a UUIDv7: ids sort by age, which is what lists are paged by. */
function newFileId(): string {
  return `file-${uuidv7().replaceAll("-", "")}`;
}

/** Bytes that a caller's files take, those still coming in left out. */
export async function bytesOfCaller(pool: Pool, caller: string): Promise<number> {
  const { rows } = await query<{ bytes: number }>(
    pool,
    "select coalesce(sum(bytes), 0)::float8 as bytes from files where caller = $1",
    [caller],
  );
  return rows[0]?.bytes ?? 0;
}

export async function findFile(
  pool: Pool,
  { id, caller, now }: { readonly id: string; readonly caller: string; readonly now: Date },
): Promise<StoredFile | undefined> {
  const { rows } = await query<StoredFile>(
    pool,
    `select ${shown} from files where ${isThere} and id = $2 and caller = $3`,
    [now, id, caller],
  );
  return rows[0];
}

/** A caller's files in the order of their age. */
export async function listFiles(pool: Pool, filter: FileFilter, now: Date): Promise<StoredFile[]> {
  const [beyond, order] = filter.order === "asc" ? [">", "asc"] : ["<", "desc"];
  const { rows } = await query<StoredFile>(
    pool,
    `select ${shown} from files
     where ${isThere} and caller = $2
       and ($3::text is null or purpose = $3)
       and ($4::text is null or id ${beyond} $4)
     order by id ${order}
     limit $5`,
    [now, filter.caller, filter.purpose ?? null, filter.after ?? null, filter.limit],
  );
  return rows;
}

/** The bytes of a file, row by row, as they are asked for. */
export async function* readFile(runner: Pool | Client, id: string): AsyncGenerator<Buffer, void> {
  for (let index = 0; ; index += 1) {
    const { rows } = await query<{ content: Buffer }>(runner, {
      name: "read-file-chunk",
      text: "select content from file_chunks where file_id = $1 and index = $2",
      values: [id, index],
    });
    if (!rows[0]) return;
    yield rows[0].content;
  }
}

const isRead = `exists (
  select from batches b
  where b.input_file_id = f.id and b.status in ('validating', 'in_progress', 'finalizing', 'cancelling')
)`;

/** Deletes a caller's file, unless a batch still reads it. */
export async function deleteFile(
  pool: Pool,
  id: string,
  caller: string,
): Promise<"deleted" | "in-use" | "unknown"> {
  return transaction(pool, async (client) => {
    // Locked by a statement of its own: the next one then sees every batch that was being made of it.
    const { rows } = await query(
      client,
      "select from files where id = $1 and caller = $2 and is_whole for update",
      [id, caller],
    );
    if (rows.length === 0) return "unknown";
    const { rowCount } = await query(client, `delete from files f where id = $1 and not ${isRead}`, [id]);
    return rowCount ? "deleted" : "in-use";
  });
}

/** Deletes what has expired and what uploads that broke off have left. Gives how many files those were. */
export async function sweepFiles(pool: Pool, now: Date): Promise<number> {
  return transaction(pool, async (client) => {
    const { rows } = await query<{ id: string }>(
      client,
      `select id from files f
       where (expires_at <= $1 or (not is_whole and created_at < $1 - make_interval(mins => $2))) and not ${isRead}
       for update skip locked`,
      [now, uploadMaxMinutes],
    );
    const { rowCount } = await query(client, `delete from files f where id = any($1) and not ${isRead}`, [
      rows.map(({ id }) => id),
    ]);
    return rowCount ?? 0;
  });
}

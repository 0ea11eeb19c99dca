import { StoreError } from "./errors.ts";
import { encodeInteraction, type NewInteraction, type Redact } from "./interaction-record.ts";
import { InteractionShipper } from "./interaction-shipper.ts";
import { Journal, type JournalLog } from "./journal/journal.ts";
import type { Pool } from "./pool.ts";

/** The log of every call of a model. */
export interface InteractionLog extends AsyncDisposable {
  /**
   * Resolves once the interaction is on disk, in the journal; Postgres has it a tenth of a second later, or when it is
   * back. Rejects with `StoreError` `store-busy` or `journal-unwritable`.
   */
  readonly record: (interaction: NewInteraction) => Promise<void>;
  /** Resolves once all that was recorded can be read in Postgres, or Postgres is away, or 2 s have passed. */
  readonly settled: () => Promise<void>;
  /**
   * Resolves once nothing that was recorded so far is in the journal of this process any more: what is deleted from
   * Postgres then does not come back. Throws `StoreError` `database-away` where that cannot be.
   */
  readonly leaveJournal: () => Promise<void>;
  /** What is not in Postgres yet. */
  readonly status: () => JournalStatus;
}

interface JournalStatus {
  /** Interactions of this process that wait for Postgres. */
  readonly records: number;
  /** On disk, with those of earlier processes. */
  readonly bytes: number;
  readonly bytesMax: number;
  /** How long the oldest has waited, seconds; 0 where none does. */
  readonly oldestAgeS: number;
  /** Whether the last attempt to store something failed. */
  readonly databaseAway: boolean;
}

export interface InteractionLogOptions {
  readonly pool: Pool;
  /** Of the journal; made when first needed. Processes of one machine may share it. */
  readonly folder: string;
  readonly log: JournalLog;
  readonly redact?: Redact | undefined;
  /** Bytes that the journal may take on disk. Default 1 GiB. */
  readonly bytesMax?: number | undefined;
}

/** What the journal may take on disk: a day of Postgres being away, at a few calls a second. */
const journalBytesMax = 1024 ** 3;
/** After so long without anything new, what Postgres has is deleted from the journal. */
const idleMs = 1_000;
/** Between two looks for what dead processes left. */
const adoptEveryMs = 30_000;

/** Opens the log for writing, and starts to store what earlier processes left in the journal. */
export function openInteractionLog(options: InteractionLogOptions): InteractionLog {
  const { pool, folder, log, redact, bytesMax = journalBytesMax } = options;
  const journal = new Journal<NewInteraction>({
    folder,
    encode: (interaction, written) => encodeInteraction(interaction, written, redact),
    onDurable: () => shipper.wake(),
    log,
    bytesMax,
  });
  const shipper = new InteractionShipper({ pool, journal, folder, log });
  const adopt = () =>
    journal
      .adopt()
      .catch((error: unknown) => log.warn({ err: error }, "journal of an earlier process not taken over"));
  let adoption: Promise<unknown> = adopt();
  const adopting = setInterval(() => {
    adoption = adoption.then(adopt);
  }, adoptEveryMs).unref();
  let bytesBefore = 0;
  const tidying = setInterval(() => {
    if (journal.bytes === bytesBefore && isTaken(journal)) void journal.rotate();
    bytesBefore = journal.bytes;
  }, idleMs).unref();

  return {
    record: (interaction) => journal.append(interaction),
    settled: async () => {
      await adoption;
      await shipper.settled();
    },
    leaveJournal: async () => {
      await adoption;
      const segments = [...journal.segments];
      await journal.rotate();
      if (!(await shipper.settled(segments)))
        throw new StoreError("database-away", "The database does not answer; try again in a moment.");
      await journal.tidied();
    },
    status: () => statusOf(journal, bytesMax, shipper.isAway),
    async [Symbol.asyncDispose]() {
      clearInterval(adopting);
      clearInterval(tidying);
      await adoption;
      await shipper.settled();
      await shipper[Symbol.asyncDispose]();
      await journal[Symbol.asyncDispose]();
    },
  };
}

function isTaken(journal: Journal<NewInteraction>): boolean {
  return journal.segments.every(({ bytes, takenBytes }) => takenBytes >= bytes);
}

function statusOf(journal: Journal<NewInteraction>, bytesMax: number, databaseAway: boolean): JournalStatus {
  const waiting = journal.segments.filter(({ bytes, takenBytes }) => takenBytes < bytes);
  const since = Math.min(...waiting.map((segment) => segment.since));
  return {
    records: waiting.reduce((sum, { items }) => sum + items, 0),
    bytes: waiting.reduce((sum, { bytes, takenBytes }) => sum + bytes - takenBytes, 0),
    bytesMax,
    oldestAgeS: waiting.length > 0 ? Math.max(0, (Date.now() - since) / 1000) : 0,
    databaseAway,
  };
}

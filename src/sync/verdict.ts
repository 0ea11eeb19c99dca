import type { Reply } from "./project.ts";

/**
 * What an answer means for what was sent. `wait`: try again later, nothing is wrong with it. `alarm`: nothing gets
 * through until a person has done something. `refused`: it is at fault, or one row of it.
 */
export type Verdict = "done" | "wait" | "alarm" | "refused";

/** Judges an answer, of PostgREST's or of a proxy before it. */
export function verdictOf({ status, error }: Pick<Reply, "status" | "error">): Verdict {
  if (error === null) return "done";
  if (status === 0 || passing.has(status)) return "wait";
  if (persons.has(status) || isSchemaLacking(error.code)) return "alarm";
  if (isAboutRows(error)) return "refused";
  if (status >= 500) return "wait";
  // An answer that was cut off: it went well, or its words are lost; either way it is safe to send again.
  if (status < 400) return "wait";
  // What is not surely a row's fault is none: else everything would be set aside where a project takes nothing.
  return rows.has(status) && !isSqlState(error.code) ? "refused" : "alarm";
}

/** Timeouts, too early, too many. */
const passing = new Set([408, 425, 429]);
/** Wrong key, unpaid, forbidden, no such place. */
const persons = new Set([401, 402, 403, 404]);
/** Bad, conflicting, gone out of hand, too large, not to be processed. */
const rows = new Set([400, 409, 413, 414, 422]);

/** PostgREST knows no such function, column or table: the project lacks a migration, and no row is to blame. */
function isSchemaLacking(code: string): boolean {
  return /^(PGRST20[0-5]|42...|3F...)$/.test(code);
}

/**
 * SQLSTATE classes of data (21, 22), constraints (23), views' checks (44) and what a trigger raises (P0). Not, for one, 25006: a
 * project whose disk is full can only be read. Some servers answer 500 for all of them, and only their words tell.
 */
function isAboutRows({ code, message }: { readonly code: string; readonly message: string }): boolean {
  if (code === "SUP") return /violates|invalid input|out of range|no partition/i.test(message);
  return /^(21|22|23|44|P0)...$/.test(code);
}

function isSqlState(code: string): boolean {
  return /^[0-9A-Z]{5}$/.test(code);
}

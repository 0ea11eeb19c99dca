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
  if (status >= 500) return isAboutRows(error) ? "refused" : "wait";
  // An answer that was cut off: it went well, or its words are lost; either way it is safe to send again.
  return status < 400 ? "wait" : "refused";
}

/** Timeouts, too early, too many. */
const passing = new Set([408, 425, 429]);
/** Wrong key, unpaid, forbidden, no such place. */
const persons = new Set([401, 402, 403, 404]);

/** PostgREST knows no such function, column or table: the project lacks a migration, and no row is to blame. */
function isSchemaLacking(code: string): boolean {
  return /^(PGRST20[0-5]|42P01|42703|42883|3F000)$/.test(code);
}

/** Some servers answer 500 for a row that breaks a rule; only their words tell. */
function isAboutRows({ code, message }: { readonly code: string; readonly message: string }): boolean {
  return /^(22|23)/.test(code) || (code === "SUP" && /violates|invalid input|out of range/i.test(message));
}

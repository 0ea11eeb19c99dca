import { nearest } from "../../config/nearest.ts";
import { subjectNames } from "../../store/agent-reads.ts";
import type { Pool } from "../../store/pool.ts";
import { findSubject, type Subject } from "../../store/subjects.ts";
import { AgentError } from "../agent-error.ts";

/** Names that a wrong one is compared with, and names that are offered instead of it. */
const comparedMax = 5_000;
const offeredMax = 5;

/**
 * The subject that is meant: by id, by name, or by name in another case where only one has it.
 * Throws `AgentError` `subject-unknown`, which names those whose names are near.
 */
export async function meantSubject(pool: Pool, idOrName: string): Promise<Subject> {
  const subject = await findSubject(pool, idOrName);
  if (subject) return subject;
  const wanted = idOrName.trim().toLowerCase();
  const names = await subjectNames(pool, comparedMax);
  const [same, ...others] = names.filter((name) => name.toLowerCase() === wanted);
  const meant = same !== undefined && others.length === 0 ? await findSubject(pool, same) : undefined;
  if (meant) return meant;

  const near = nearNames(wanted, names);
  const hint = near.length > 0 ? ` Near it: ${near.map((name) => JSON.stringify(name)).join(", ")}.` : "";
  throw new AgentError(
    "subject-unknown",
    `There is no subject ${JSON.stringify(idOrName.slice(0, 200))}.${hint}`,
  );
}

/** Names that contain it or are contained in it, and the one that a slip of the keyboard may have meant. */
function nearNames(wanted: string, names: readonly string[]): string[] {
  const containing = names.filter((name) => {
    const lower = name.toLowerCase();
    return wanted !== "" && (lower.includes(wanted) || (lower.length > 2 && wanted.includes(lower)));
  });
  const slip = nearest(wanted.slice(0, 200), names);
  return [...new Set([...(slip === undefined ? [] : [slip]), ...containing])].slice(0, offeredMax);
}

import { type Pool, query } from "./pool.ts";

/** A subject as the agent lists it. */
export interface SubjectLine {
  readonly name: string;
  readonly species: string | null;
  /** Keys of the devices that were ever on it. */
  readonly devices: readonly string[];
}

/**
 * Subjects in order of name, `limit` at most, with how many there are in all; only those whose name, species or
 * one of whose devices contains the text, in whatever case, where one is given.
 */
export async function searchSubjects(
  pool: Pool,
  { text, limit }: { readonly text?: string | undefined; readonly limit: number },
): Promise<{ subjects: SubjectLine[]; total: number }> {
  const { rows } = await query<{ subjects: SubjectLine[]; total: number }>(
    pool,
    `with found as (
       select s.name, s.species, array(
         select distinct v.key from public.deployments d join public.devices v on v.id = d.device_id
         where d.subject_id = s.id order by v.key
       ) as devices
       from public.subjects s
     ), wanted as (
       select * from found
       where $1::text is null or strpos(lower(name), lower($1)) > 0 or strpos(lower(species), lower($1)) > 0
         or exists (select from unnest(devices) key where strpos(lower(key), lower($1)) > 0)
     )
     select (select count(*)::int from wanted) as total, coalesce(json_agg(page order by page.name), '[]') as subjects
     from (select * from wanted order by name limit $2) page`,
    [text ?? null, limit],
  );
  return rows[0] ?? { subjects: [], total: 0 };
}

/** Names of subjects, `limit` at most: what a name that nobody bears can be compared with. */
export async function subjectNames(pool: Pool, limit: number): Promise<string[]> {
  const { rows } = await query<{ name: string }>(
    pool,
    "select name from public.subjects order by name limit $1",
    [limit],
  );
  return rows.map(({ name }) => name);
}

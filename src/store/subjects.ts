import { type Pool, query } from "./pool.ts";

/** Which device was on a subject; null where that has no known beginning or end. */
interface SubjectDeployment {
  /** Key of the device. */
  readonly device: string;
  /** RFC 3339 UTC. */
  readonly started_at: string | null;
  readonly ended_at: string | null;
}

/** Somebody or something that is tracked. */
export interface Subject {
  readonly id: string;
  readonly name: string;
  readonly species: string | null;
  readonly created_at: string;
  readonly deployments: readonly SubjectDeployment[];
}

const iso = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

const columns = `
  s.id, s.name, s.species, ${iso("s.created_at")} as created_at,
  (
    select coalesce(json_agg(json_build_object(
      'device', v.key,
      'started_at', case when isfinite(d.started_at) then ${iso("d.started_at")} end,
      'ended_at', case when isfinite(d.ended_at) then ${iso("d.ended_at")} end
    ) order by d.started_at, v.key), '[]')
    from public.deployments d join public.devices v on v.id = d.device_id
    where d.subject_id = s.id
  ) as deployments`;

/** Subjects in order of name, those after the name `after` only, `limit` at most. */
export async function listSubjects(
  pool: Pool,
  page: { readonly limit: number; readonly after?: string | undefined },
): Promise<Subject[]> {
  const { rows } = await query<Subject>(
    pool,
    `select ${columns} from public.subjects s where $1::text is null or s.name > $1 order by s.name limit $2`,
    [page.after ?? null, page.limit],
  );
  return rows;
}

/** A subject by its id or, where no subject has that id, by its name; undefined where there is none. */
export async function findSubject(pool: Pool, idOrName: string): Promise<Subject | undefined> {
  // Postgres takes no NUL in a text, so no name has one.
  if (idOrName.includes("\0")) return undefined;
  const isId = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(idOrName);
  const { rows } = await query<Subject>(
    pool,
    `select ${columns} from public.subjects s where s.id = $1::uuid or s.name = $2
     order by s.id = $1::uuid desc nulls last limit 1`,
    [isId ? idOrName : null, idOrName],
  );
  return rows[0];
}

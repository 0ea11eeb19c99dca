import { type Pool, query } from "./pool.ts";

/** Another station on the project, as the mirror brought it. */
export interface Station {
  readonly id: string;
  readonly name: string;
}

/** All other stations that are known here, by name. Two may have the same. */
export async function otherStations(pool: Pool): Promise<Station[]> {
  const { rows } = await query<Station>(
    pool,
    "select id, name from stations where station_id is not null order by name, id",
  );
  return rows;
}

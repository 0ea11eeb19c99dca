import pg from "pg";

/**
 * How a project differs from the station that it mirrors, all columns of all rows of all mirrored tables compared; empty
 * where both are equal, and say so themselves by their checksums.
 */
export async function mirrorDifferences(stationUrl: string, projectUrl: string): Promise<string[]> {
  const [station, project] = [new pg.Client(stationUrl), new pg.Client(projectUrl)];
  await Promise.all([station.connect(), project.connect()]);
  try {
    const { rows: tables } = await station.query("select table_name from sync.mirrored_tables order by 1");
    const found: string[] = [];
    for (const { table_name: table } of tables) {
      const [ours, theirs] = await Promise.all([tableOf(station, table), tableOf(project, table)]);
      found.push(...differences(table, ours, theirs));
    }
    return found;
  } finally {
    await Promise.all([station.end(), project.end()]);
  }
}

interface Side {
  /** Each row as JSON, names in one order. */
  readonly rows: ReadonlySet<string>;
  readonly checksum: string;
}

/** A table, with the id of whose database it is where a row names no station. */
async function tableOf(side: pg.Client, table: string): Promise<Side> {
  const { rows } = await side.query(
    `select (json || jsonb_build_object('station_id', coalesce(nullif(json -> 'station_id', 'null'), own)) || case
         when json ? 'changed_by' then jsonb_build_object('changed_by', coalesce(nullif(json -> 'changed_by', 'null'), own))
         else '{}'
       end)::text as row
     from (select to_jsonb(t) as json from public.${table} t) as given
     cross join (select to_jsonb(sync.own_station()) as own) as side`,
  );
  const { rows: sums } = await side.query("select * from sync.checksum($1, sync.own_station())", [table]);
  return { rows: new Set(rows.map(({ row }) => row)), checksum: JSON.stringify(sums[0]) };
}

function differences(table: string, station: Side, project: Side): string[] {
  const missing = [...station.rows.difference(project.rows)];
  const surplus = [...project.rows.difference(station.rows)];
  const areEqual = missing.length + surplus.length === 0;
  return [
    ...missing.map((row) => `${table}: the project lacks ${row}`),
    ...surplus.map((row) => `${table}: the project alone has ${row}`),
    ...(areEqual === (station.checksum === project.checksum)
      ? []
      : [`${table}: the checksums are ${station.checksum} and ${project.checksum}`]),
  ];
}

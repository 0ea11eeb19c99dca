/** Which past calls are meant. What is absent says nothing. */
export interface InteractionFilter {
  readonly sessionId?: string | undefined;
  readonly runId?: string | undefined;
  readonly model?: string | undefined;
  readonly caller?: string | undefined;
  readonly route?: string | undefined;
  readonly cache?: "HIT" | "MISS" | "JOINED" | "BYPASS" | undefined;
  /** Whether it is a repeat from the cache. */
  readonly cached?: boolean | undefined;
  readonly outcome?: string | undefined;
  /**
   * Words of the question or the answer, as people type them into a search engine: `"exact words"`, `or`, `-not`.
   * Leaves repeats from the cache out, unless `cached` or `cache` asks for them: those are not in the index.
   */
  readonly words?: string | undefined;
  /** Not before. */
  readonly from?: Date | undefined;
  /** Before. */
  readonly to?: Date | undefined;
  /** Ids of the other stations whose calls are meant, or every station with this one. Absent: this one alone. */
  readonly stations?: "all" | readonly string[] | undefined;
  /** Only those older than this one. */
  readonly after?: { readonly createdAt: Date; readonly id: string } | undefined;
}

/** A condition in SQL for the filter, and the values of its parameters. */
export function whereOf(filter: InteractionFilter): { readonly sql: string; readonly values: unknown[] } {
  const values: unknown[] = [];
  const value = (given: unknown) => `$${values.push(given)}`;
  const { words, stations, after } = filter;
  const conditions = [
    stations === undefined
      ? "station_id is null"
      : stations === "all"
        ? "true"
        : `station_id = any(${value(stations)}::uuid[])`,
    ...columns.flatMap(([key, column]) =>
      filter[key] === undefined ? [] : `${column} = ${value(filter[key])}`,
    ),
    ...(filter.from === undefined ? [] : [`created_at >= ${value(filter.from)}`]),
    ...(filter.to === undefined ? [] : [`created_at < ${value(filter.to)}`]),
    ...(after ? [`(created_at, id) < (${value(after.createdAt)}, ${value(after.id)})`] : []),
    ...(words === undefined
      ? []
      : [`interaction_words(prompt, response) @@ websearch_to_tsquery('simple', ${value(words)})`]),
    ...(words !== undefined && !filter.cached && filter.cache !== "HIT" ? ["not cached"] : []),
  ];
  return { sql: conditions.join(" and "), values };
}

const columns = [
  ["sessionId", "session_id"],
  ["runId", "run_id"],
  ["model", "model"],
  ["caller", "caller"],
  ["route", "route"],
  ["cache", "cache"],
  ["cached", "cached"],
  ["outcome", "outcome"],
] as const satisfies readonly (readonly [keyof InteractionFilter, string])[];

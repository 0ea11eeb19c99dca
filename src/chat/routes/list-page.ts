/** A page of a list as OpenAI's API gives it, of rows of which one more was looked for than the page may have. */
export function listPage<Row, Item extends { readonly id: string }>(
  rows: readonly Row[],
  limit: number,
  itemOf: (row: Row) => Item,
) {
  const data = rows.slice(0, limit).map(itemOf);
  return {
    object: "list" as const,
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: rows.length > limit,
  };
}

export type Format = "json" | "geojson" | "csv";

export const mediaTypeOf = {
  json: "application/json; charset=utf-8",
  geojson: "application/geo+json",
  csv: "text/csv; charset=utf-8",
} satisfies Record<Format, string>;

const formatOf: Readonly<Record<string, Format>> = {
  "application/json": "json",
  "application/geo+json": "geojson",
  "application/vnd.geo+json": "geojson",
  "text/csv": "csv",
};

/** The form that the query names, else the first in the Accept header that there is, else JSON. */
export function formatFor(asked: Format | undefined, accept: string | undefined): Format {
  if (asked) return asked;
  const types = (accept ?? "").split(",").map((part) => part.split(";", 1)[0]?.trim().toLowerCase() ?? "");
  return types.map((type) => formatOf[type]).find((format) => format !== undefined) ?? "json";
}

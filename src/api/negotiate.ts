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

/**
 * The form that the query names, else the one that the Accept header prefers, the first where it does not care,
 * else JSON.
 */
export function formatFor(asked: Format | undefined, accept: string | undefined): Format {
  if (asked) return asked;
  const wanted = (accept ?? "").split(",").flatMap((part) => {
    const [type = "", ...parameters] = part.split(";").map((piece) => piece.trim().toLowerCase());
    const format = formatOf[type];
    const quality = Number(parameters.find((parameter) => parameter.startsWith("q="))?.slice(2) ?? 1);
    return format && quality > 0 ? [{ format, quality }] : [];
  });
  return wanted.toSorted((a, b) => b.quality - a.quality)[0]?.format ?? "json";
}

/**
 * The number that a text writes in decimal; NaN where it is no such text, undefined where there is none.
 * `Number` alone would read "" as 0 and take hexadecimal.
 */
export function decimal(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?$/i.test(text) ? Number(text) : Number.NaN;
}

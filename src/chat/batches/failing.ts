/**
 * What a failure of one line says: `final`: of the line itself, it fails; `counts`: perhaps of the line, it is
 * tried a few times; `batch-rests`: of its model, which all lines of its batch ask; `caller-rests`: of its caller, whose
 * batches all rest; `waits`: of nobody, all wait until it has passed.
 */
export type Failing = "final" | "counts" | "batch-rests" | "caller-rests" | "waits";

/** Where the status does not tell. */
const known: Readonly<Record<string, Failing>> = {
  // Memory that is missing now, or for ever.
  "model-load-failed": "counts",
  // Somebody has to set a key: 50,000 lines had better not fail for that.
  "upstream-auth": "waits",
  "upstream-open": "batch-rests",
  "token-budget-spent": "caller-rests",
  // A line that was taken from us, or given up because this server stops.
  "client-gone": "waits",
  internal: "final",
};

/** Decides by code, then by status. */
export function failingOf({ code, status }: { readonly code: string; readonly status: number }): Failing {
  return known[code] ?? (status === 429 || status === 503 ? "waits" : status >= 500 ? "counts" : "final");
}

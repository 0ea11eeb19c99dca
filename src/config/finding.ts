/** What a check of the surroundings found, with the remedy beside it. */
export interface Finding {
  readonly check: string;
  /** `warn`: the station works without it, but not all of it. */
  readonly outcome: "ok" | "warn" | "fail";
  readonly detail: string;
  readonly remedy?: string;
}

export function fine(check: string, detail: string): Finding {
  return { check, outcome: "ok", detail };
}

export function warns(check: string, detail: string, remedy: string): Finding {
  return { check, outcome: "warn", detail, remedy };
}

export function fails(check: string, detail: string, remedy: string): Finding {
  return { check, outcome: "fail", detail, remedy };
}

export function isNoFailure({ outcome }: Finding): boolean {
  return outcome !== "fail";
}

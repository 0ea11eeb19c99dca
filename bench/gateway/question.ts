/** The model that is asked for. */
export const model = "deepseek-r1-distill-qwen-7b";

export const tokensByDefault = 16;

/** What the stand-in has counted. */
export interface Counts {
  readonly calls: number;
  /** Calls whose caller left before their answer was whole. */
  readonly aborted: number;
  /** When the last of them was left, by `clockMs`; 0: none. */
  readonly abortedAt: number;
}

/** What the stand-in is told about one answer, where it is to be special. */
export interface Wish {
  readonly latencyMs?: number;
  readonly tokens?: number;
  readonly gapMs?: number;
  readonly fault?: Fault;
}

/** The ways in which the stand-in fails. */
type Fault = (typeof faults)[number];
export const faults = [
  "500",
  "503",
  "429",
  "context",
  "crash",
  "reset",
  "hang",
  "empty",
  "garbage",
  "cut",
  "error-event",
] as const;

/** Milliseconds by the clock that all processes of a machine share, and that nobody sets. */
export function clockMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

const words = [
  "The",
  " bird",
  " roosted",
  " at",
  " the",
  " north",
  " pond",
  " and",
  " left",
  " before",
  " dawn.",
];

/** The answer in so many tokens, from the `first` on. */
export function textOf(tokens: number, first = 0): string {
  return Array.from({ length: tokens }, (_, index) => words[(first + index) % words.length]).join("");
}

const run = Math.random().toString(36).slice(2, 8);
let asked = 0;

/** The body of a question that nobody has asked before; `@` stands in it where `mark` is asked for. */
export function question(
  options: { readonly stream?: boolean; readonly wish?: Wish; readonly mark?: string } = {},
): string {
  const { stream = false, wish, mark = String(++asked) } = options;
  const told = Object.entries(wish ?? {}).map(([name, value]) => `${name}=${value}`);
  const content = `Where did bird ${run}-${mark} roost last night?${told.length > 0 ? ` [[${told.join(" ")}]]` : ""}`;
  return JSON.stringify({
    model,
    messages: [{ role: "user", content }],
    temperature: 0,
    ...(stream ? { stream: true } : {}),
  });
}

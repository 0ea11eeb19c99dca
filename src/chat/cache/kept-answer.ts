import type { Completion } from "../completion.ts";

/** Whose answer it is, and from which model. */
export interface About {
  readonly model: string;
  /** Nobody else is shown it, or that it is there. */
  readonly caller: string;
}

/** An answer as it is kept. */
export interface KeptAnswer {
  readonly completion: Completion;
  readonly about: About;
  /** Milliseconds since 1970, by the clock of the server that asked the model. */
  readonly storedAt: number;
}

/** Which answers are meant: those that all given parts fit. Without any part, every answer. */
export interface Selection {
  readonly model?: string | undefined;
  /** How their keys begin, such as `chat/`. */
  readonly prefix?: string | undefined;
  readonly caller?: string | undefined;
}

/** Whether an answer is one of those that are meant. */
export function isSelected({ model, prefix, caller }: Selection, key: string, about: About): boolean {
  if (prefix !== undefined && !key.startsWith(prefix)) return false;
  if (model !== undefined && about.model !== model) return false;
  return caller === undefined || about.caller === caller;
}

/** One call of a tool and what it returned: what an answer rests on. */
export interface Evidence {
  readonly tool: string;
  readonly arguments: unknown;
  /** As the model saw it; `{error: {code, detail}}` where there was nothing to return. */
  readonly result: unknown;
}

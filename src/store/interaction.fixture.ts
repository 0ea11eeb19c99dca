import { v7 as uuidv7 } from "uuid";
import type { InteractionContent, NewInteraction } from "./interaction-record.ts";

/** An interaction of a test: what is not given is the least that one can be. */
export function newInteraction(
  change: Partial<NewInteraction> = {},
  content: Partial<InteractionContent> = {},
): NewInteraction {
  return {
    id: uuidv7(),
    createdAt: new Date(),
    route: "/chat",
    caller: "local",
    requestId: "request-1",
    content: {
      model: "m",
      promptJson: '[{"role":"user","content":"Hi"}]',
      parameters: { temperature: 0 },
      text: "Hello",
      reasoning: "",
      toolCalls: [],
      ...content,
    },
    cache: "MISS",
    outcome: "ok",
    processingTimeMs: 1.5,
    ...change,
  };
}

/** A log that says nothing. */
export const silent = { info: () => {}, warn: () => {} };

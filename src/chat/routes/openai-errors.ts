import { Type } from "typebox";
import { callFailures } from "./schemas.ts";

export const OpenAiError = Type.Object({
  error: Type.Object({
    message: Type.String(),
    type: Type.String(),
    param: Type.Null(),
    code: Type.String(),
  }),
});

/** Responses by which a route of OpenAI's API fails. */
export const openAiErrors = Object.fromEntries(
  Object.entries(callFailures).map(([status, description]) => [
    status,
    { description, content: { "application/json": { schema: OpenAiError } } },
  ]),
);

import type { Config } from "../config/config.ts";
import { ChatError } from "./chat-error.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";
import { spokenHistory } from "./spoken-history.ts";
import { tokensWithin } from "./token-limit.ts";

type Body = Readonly<Record<string, unknown>>;
export type AskedBody = Body & { readonly model: string };
type Limits = Pick<Config, "CHAT_MAX_TOKENS" | "DEEPSEEK_MODEL">;

/**
 * The body of an OpenAI request as LM Studio is to get it: within our limits, and without what it refuses.
 * What is not named here goes on as it is, parameters that nobody has heard of yet included. Takes a body that
 * fits its route's schema. Throws `ChatError` `max-tokens-exceeded` or `parameter-unsupported`.
 */
export function askedBody(endpoint: Endpoint, body: Body, limits: Limits): AskedBody {
  // How the answer travels is no part of the question.
  const { stream: _stream, stream_options: _options, ...question } = body;
  const model = typeof body.model === "string" ? body.model : limits.DEEPSEEK_MODEL;
  return { ...changed[endpoint](question, limits.CHAT_MAX_TOKENS), model };
}

const changed = {
  chat: ({ max_completion_tokens: newer, max_tokens, ...body }, limit) => {
    refuseUnsupported(body);
    return {
      ...body,
      messages: spokenHistory(body.messages as Body[]),
      // LM Studio knows only the older name everywhere.
      max_tokens: tokensWithin(
        tokens(newer) ?? tokens(max_tokens),
        limit,
        newer ? "max_completion_tokens" : "max_tokens",
      ),
      ...(typeOf(body.response_format) === "json_object" ? { response_format: anyObject } : {}),
    };
  },
  text: ({ max_tokens, ...body }, limit) => {
    refuseUnsupported(body);
    const prompt = Array.isArray(body.prompt) ? body.prompt[0] : body.prompt;
    return { ...body, prompt, max_tokens: tokensWithin(tokens(max_tokens), limit, "max_tokens") };
  },
  // Encoding the numbers is left to us.
  embeddings: ({ encoding_format: _format, ...body }) => body,
  responses: ({ max_output_tokens, text, ...body }, limit) => ({
    ...body,
    // Without a format it is refused (lmstudio-bug-tracker#1576), and says nothing.
    ...((text as { format?: unknown } | undefined)?.format ? { text } : {}),
    max_output_tokens: tokensWithin(tokens(max_output_tokens), limit, "max_output_tokens"),
  }),
} satisfies Record<Endpoint, (body: Body, limit: number) => Body>;

/** LM Studio refuses `json_object` (lmstudio-bug-tracker#189); this schema means the same. */
const anyObject = {
  type: "json_schema",
  json_schema: { name: "object", schema: { type: "object" } },
};

/** What LM Studio would pass over in silence, and the caller then look for in vain. */
function refuseUnsupported({ n, logprobs, top_logprobs }: Body): void {
  if (typeof n === "number" && n > 1) {
    throw unsupported(
      "n",
      "LM Studio gives one answer to a request: ask as often as you want answers (`n`).",
    );
  }
  if (logprobs === true || typeof logprobs === "number" || tokens(top_logprobs)) {
    const param = tokens(top_logprobs) ? "top_logprobs" : "logprobs";
    throw unsupported(param, "LM Studio does not tell how likely its tokens are: leave `logprobs` out.");
  }
}

function unsupported(param: string, detail: string): ChatError {
  return new ChatError("parameter-unsupported", detail, { param });
}

function tokens(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function typeOf(format: unknown): unknown {
  return (format as { type?: unknown } | undefined | null)?.type;
}

import type { FastifyError } from "fastify";
import { ChatError } from "./chat-error.ts";
import type { Completion, Head } from "./completion.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";
import type { Delta } from "./lm-studio/reasoning.ts";

/** A whole answer as OpenAI's API gives it, with LM Studio's `reasoning_content`. */
export function completionJson(endpoint: Endpoint, completion: Completion): string {
  const { head, text, reasoning, toolCalls, finishReason, usage } = completion;
  const said =
    endpoint === "text"
      ? { text }
      : {
          message: {
            role: "assistant",
            content: text,
            reasoning_content: reasoning,
            ...(toolCalls.length > 0 ? { tool_calls: toolCalls } : {}),
          },
        };
  return JSON.stringify({
    id: head.id,
    object: endpoint === "chat" ? "chat.completion" : "text_completion",
    created: head.created,
    model: head.model,
    choices: [{ index: 0, ...said, logprobs: null, finish_reason: finishReason }],
    ...(usage ? { usage } : {}),
    ...(head.system_fingerprint === undefined ? {} : { system_fingerprint: head.system_fingerprint }),
  });
}

const kept = new WeakMap<Completion, { readonly endpoint: Endpoint; readonly json: string }>();

/** The same, made once for an answer that is given again and again. */
export function keptJson(endpoint: Endpoint, completion: Completion): string {
  const before = kept.get(completion);
  if (before?.endpoint === endpoint) return before.json;
  const json = completionJson(endpoint, completion);
  kept.set(completion, { endpoint, json });
  return json;
}

/** Writes the events of one streamed answer. */
export class ChunkWriter {
  readonly #endpoint: Endpoint;
  readonly #prefix: string;

  constructor(endpoint: Endpoint, { id, created, model, system_fingerprint }: Head) {
    this.#endpoint = endpoint;
    const object = endpoint === "chat" ? "chat.completion.chunk" : "text_completion";
    const head = JSON.stringify({ id, object, created, model, system_fingerprint });
    this.#prefix = `data: ${head.slice(0, -1)},"choices":[`;
  }

  delta(delta: Delta): string {
    return this.#choice(this.#endpoint === "chat" ? chatDelta(delta) : { content: delta.text }, "null");
  }

  /** All that follows the last delta. The usage goes to those who asked for it. */
  end({ finishReason, usage }: Completion, includeUsage: boolean): string {
    const last = this.#choice({}, JSON.stringify(finishReason));
    const counted = includeUsage && usage ? `${this.#prefix}],"usage":${JSON.stringify(usage)}}\n\n` : "";
    return `${last}${counted}data: [DONE]\n\n`;
  }

  #choice(delta: { content?: string | undefined }, finishReason: string): string {
    const said =
      this.#endpoint === "chat"
        ? `"delta":${JSON.stringify(delta)}`
        : `"text":${JSON.stringify(delta.content ?? "")}`;
    return `${this.#prefix}{"index":0,${said},"logprobs":null,"finish_reason":${finishReason}}]}\n\n`;
  }
}

function chatDelta({ text, reasoning, toolCalls }: Delta) {
  if (toolCalls) {
    const first = toolCalls.some(({ id }) => id !== undefined);
    return { ...(first ? { role: "assistant" } : {}), tool_calls: toolCalls };
  }
  return reasoning === undefined
    ? { role: "assistant", content: text }
    : { role: "assistant", reasoning_content: reasoning };
}

/** OpenAI's form of an error. Codes have underscores there. */
export function openAiError(
  problem: { readonly status: number; readonly code: string; readonly detail: string },
  param: string | null = null,
) {
  return {
    error: {
      message: problem.detail,
      type: typeOf(problem.status),
      param,
      code: problem.code.replaceAll("-", "_"),
    },
  };
}

/** The parameter that an error blames, as OpenAI writes it: `messages[0].role`. */
export function blamedParam(error: unknown): string | null {
  if (error instanceof ChatError) return error.param ?? null;
  const [first] = (error as Partial<FastifyError>).validation ?? [];
  if (!first) return null;
  const { missingProperty } = first.params;
  const steps = first.instancePath.split("/").slice(1);
  if (typeof missingProperty === "string") steps.push(missingProperty);
  const [name, ...inner] = steps;
  if (name === undefined) return null;
  return name + inner.map((step) => (/^\d+$/.test(step) ? `[${step}]` : `.${step}`)).join("");
}

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

import type { Dispatcher } from "undici";
import { ChatError } from "../chat-error.ts";
import { classify, connectionError, isStaleConnection } from "./errors.ts";
import { parsed } from "./payload-reader.ts";

/** A model as LM Studio lists it, with what its native APIs add where they answer. */
export interface ListedModel {
  readonly id: string;
  readonly object: "model";
  readonly owned_by: string;
  readonly state?: string;
  readonly capabilities?: string[];
  readonly max_context_length?: number;
  readonly loaded_context_length?: number;
  /** Requests that it answers at once. */
  readonly parallel?: number;
}

export interface ListOptions {
  readonly dispatcher: Dispatcher;
  /** LM Studio's root, and what its paths begin with. */
  readonly url: string;
  readonly path: string;
  readonly headers: string[];
  readonly silenceMs: number;
  /** Native lists that this LM Studio turned out not to have: they are not asked for again. */
  readonly missing: Set<string>;
}

/** Bytes of a list of models. */
const listBytesMax = 4 * 1024 * 1024;

/**
 * All models of one LM Studio: OpenAI's list, which says little, with the state and context of its native API v0
 * and the concurrency of v1. Those two are extras: older versions lack them, and one may go some day.
 * Throws a `ChatError` where LM Studio does not answer, or not as it should.
 */
export async function listModels(options: ListOptions): Promise<ListedModel[]> {
  const [list, v0, v1] = await Promise.all([
    get(options, "/v1/models").then(({ status, body }) => {
      const data = listIn(body, "data");
      if (status !== 200 || !data) throw classify(body, status);
      return data;
    }),
    native(options, "/api/v0/models", "data"),
    native(options, "/api/v1/models", "models"),
  ]);
  const states = new Map(v0.map((model) => [model.id, model]));
  const parallels = new Map(v1.map((model) => [model.key, parallelOf(model)]));
  return list
    .filter(({ id }) => typeof id === "string")
    .map(({ id, owned_by }) => {
      const { state, capabilities, max_context_length, loaded_context_length } = states.get(id) ?? {};
      const parallel = parallels.get(id);
      return {
        id,
        object: "model",
        owned_by: owned_by ?? "organization_owner",
        ...(state ? { state } : {}),
        ...(capabilities ? { capabilities } : {}),
        ...(max_context_length ? { max_context_length } : {}),
        ...(loaded_context_length ? { loaded_context_length } : {}),
        ...(parallel ? { parallel } : {}),
      };
    });
}

// biome-ignore lint/suspicious/noExplicitAny: this is where what others sent is turned into what we know
type Loose = any;

async function native(options: ListOptions, path: string, name: string): Promise<Loose[]> {
  if (options.missing.has(path)) return [];
  const answer = await get(options, path).catch(() => undefined);
  const list = listIn(answer?.body, name);
  // LM Studio logs each path that it does not know as an error, and answers 200 to it. Any other failure may pass.
  if (!list && answer && [200, 404, 405].includes(answer.status)) options.missing.add(path);
  return list ?? [];
}

async function get({ dispatcher, url, path, headers, silenceMs }: ListOptions, of: string) {
  const signal = AbortSignal.timeout(silenceMs);
  try {
    const send = () => dispatcher.request({ path: path + of, method: "GET", headers, signal });
    const response = await send().catch((error) => {
      if (signal.aborted || !isStaleConnection(error)) throw error;
      return send();
    });
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of response.body as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > listBytesMax)
        throw new ChatError("upstream-invalid", "LM Studio's answer is far too long.");
      parts.push(part);
    }
    return { status: response.statusCode, body: parsed(Buffer.concat(parts).toString()) };
  } catch (error) {
    if (!signal.aborted) throw connectionError(error, url);
    const detail = `LM Studio at ${url} has not answered for ${silenceMs / 1000} s.`;
    throw new ChatError("upstream-timeout", detail);
  }
}

function listIn(body: unknown, name: string): Loose[] | undefined {
  const list = (body as Loose)?.[name];
  return Array.isArray(list) ? list.filter((item) => typeof item === "object" && item !== null) : undefined;
}

/** A model may be loaded more than once, under further names; requests for its own go to the first. */
function parallelOf({ key, loaded_instances: instances }: Loose): number | undefined {
  if (!Array.isArray(instances)) return undefined;
  const instance = instances.find((one) => one?.id === key) ?? instances[0];
  const parallel = instance?.config?.parallel;
  return Number.isInteger(parallel) && parallel > 0 ? parallel : undefined;
}

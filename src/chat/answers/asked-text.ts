import type { Endpoint } from "../lm-studio/endpoints.ts";

/**
 * What LM Studio is sent for a question. Every answer that can be is streamed, so that silence is noticed and
 * leaving works, with its usage, which LM Studio else leaves out of a stream.
 */
export function askedText({
  endpoint,
  body,
}: {
  readonly endpoint: Endpoint;
  readonly body: Readonly<Record<string, unknown>>;
}): string {
  return JSON.stringify({ ...body, ...added[endpoint] });
}

const added = {
  chat: { stream: true, stream_options: { include_usage: true } },
  text: { stream: true, stream_options: { include_usage: true } },
  // Its usage comes unasked.
  responses: { stream: true },
  // It answers with numbers whatever is asked for (lmstudio-bug-tracker#756); a later version may listen.
  embeddings: { encoding_format: "float" },
} satisfies Record<Endpoint, object>;

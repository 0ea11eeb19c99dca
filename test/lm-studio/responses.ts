import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import {
  beginStream,
  failNow,
  type Generation,
  pause,
  piecesOf,
  sendJson,
  textOfPieces,
  wholeCalls,
  written,
} from "./generate.ts";
import type { ChatMessage, GenerationRequest } from "./reply.ts";

/** The conversations that responses belong to, by the responses' ids. LM Studio keeps them as long as it runs. */
export type Conversations = Map<string, readonly ChatMessage[]>;

// biome-ignore lint/suspicious/noExplicitAny: the body is whatever a client sends
type Loose = any;

/** What LM Studio refuses of a body; its words are not known everywhere, its status is. */
export function refusedResponse(body: GenerationRequest, conversations: Conversations): object | undefined {
  const refused = (message: string, param: string, code: string | null = null) => ({
    error: { message, type: "invalid_request_error", param, code },
  });
  if (body.input === undefined) return refused("'input' is required", "input");
  // lmstudio-bug-tracker#1576
  if (body.text !== undefined && !(body.text as Loose)?.format)
    return refused("'text.format' is required", "text.format");
  const { previous_response_id: previous } = body;
  if (typeof previous === "string" && !conversations.has(previous)) {
    const message = `Previous response with id '${previous}' not found.`;
    return refused(message, "previous_response_id", "previous_response_not_found");
  }
  return undefined;
}

/** The request as the chat endpoint would get it, the conversation so far included. */
export function asChat(body: GenerationRequest, conversations: Conversations): GenerationRequest {
  const {
    input,
    instructions,
    previous_response_id: previous,
    tools,
    text,
    max_output_tokens,
  } = body as Loose;
  const items: Loose[] = typeof input === "string" ? [{ role: "user", content: input }] : input;
  return {
    model: body.model as string,
    stream: body.stream === true,
    messages: [
      ...(typeof instructions === "string" ? [{ role: "system", content: instructions } as const] : []),
      ...(conversations.get(previous) ?? []),
      ...items.map(messageOf),
    ],
    ...(tools ? { tools: tools.map(({ type, ...rest }: Loose) => ({ type, function: rest })) } : {}),
    ...(text?.format?.type === "json_schema"
      ? { response_format: { type: "json_schema", json_schema: text.format } }
      : {}),
    ...(typeof max_output_tokens === "number" ? { max_tokens: max_output_tokens } : {}),
  };
}

function messageOf(item: Loose): ChatMessage {
  if (item.type === "function_call_output")
    return { role: "tool", content: item.output, tool_call_id: item.call_id };
  if (item.type === "function_call") return { role: "assistant", content: "", tool_calls: [item] };
  return { role: item.role, content: item.content };
}

/** Answers `/v1/responses`, whole or as its events, and remembers the conversation for the next. */
export async function respond(
  response: ServerResponse,
  body: GenerationRequest,
  generation: Generation,
  conversations: Conversations,
): Promise<void> {
  const { reply, signal, request } = generation;
  const { failure } = reply;
  await pause(reply.headersDelayMs, signal);
  if (failure && !("after" in failure)) return failNow(response, failure);
  const all = piecesOf(generation);
  const pieces = all.slice(0, request.max_tokens ?? all.length);
  const items = itemsOf(pieces);
  const whole = wholeOf(body, generation, items, pieces.length < all.length);
  const sequence = eventsOf(whole, items);
  if (body.stream) {
    if (!response.headersSent) beginStream(response);
    const said = (event: Loose) => /_text\.delta$|arguments\.delta$/.test(event.type);
    let tokens = 0;
    for (const [index, event] of sequence.entries()) {
      const text = `event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: index })}\n\n`;
      // It announces a response at once, and then reads the prompt.
      if (event.type === "response.output_item.added" && event.output_index === 0) {
        await pause(reply.firstTokenDelayMs, signal);
        if (failure && "after" in failure && failure.after === 0) return failNow(response, failure);
      }
      if (said(event)) {
        if (tokens > 0) await pause(reply.tokenDelayMs, signal);
        if (failure && "after" in failure && tokens === failure.after) {
          // A reset makes the other side's kernel drop what was not read yet, and the tokens are to arrive.
          if (failure.how === "reset") await pause(20, signal);
          return failNow(response, failure);
        }
        if (tokens === reply.heldAfter?.tokens) await reply.heldAfter.until;
        tokens += 1;
      }
      signal.throwIfAborted();
      await written(response, text);
    }
    response.end();
  } else {
    await pause((reply.firstTokenDelayMs ?? 0) + (reply.tokenDelayMs ?? 0) * pieces.length, signal);
    if (failure) return failNow(response, failure);
    sendJson(response, 200, JSON.stringify(whole));
  }
  const answer: ChatMessage = { role: "assistant", content: textOfPieces(pieces, "content") };
  const turns = (request.messages ?? []).filter(({ role }) => role !== "system");
  if (body.store !== false) conversations.set(whole.id, [...turns, answer]);
}

interface Item {
  readonly item: Loose;
  /** What is streamed of it. */
  readonly tokens: readonly string[];
}

type Pieces = ReturnType<typeof piecesOf>;

function itemsOf(pieces: Pieces): Item[] {
  const tokensOf = (field: string) =>
    pieces.flatMap((piece) => ("field" in piece && piece.field === field ? piece.text : []));
  const thinking = tokensOf("reasoning_content");
  const text = tokensOf("content");
  const calls = wholeCalls(pieces);
  const status = "completed";
  return [
    ...(thinking.length > 0
      ? [
          {
            item: {
              id: newId("rs"),
              type: "reasoning",
              summary: [],
              content: [{ type: "reasoning_text", text: thinking.join("") }],
            },
            tokens: thinking,
          },
        ]
      : []),
    ...(text.length > 0 || calls.length === 0
      ? [
          {
            item: {
              id: newId("msg"),
              type: "message",
              role: "assistant",
              status,
              content: [{ type: "output_text", text: text.join(""), annotations: [], logprobs: [] }],
            },
            tokens: text,
          },
        ]
      : []),
    ...calls.map(({ id, function: called }) => ({
      item: { id: newId("fc"), type: "function_call", call_id: id, ...called, status },
      tokens: called.arguments.match(/.{1,8}/gs) ?? [],
    })),
  ];
}

function wholeOf(body: Loose, { request, model }: Generation, items: readonly Item[], isCut: boolean): Loose {
  const input = Math.ceil(JSON.stringify(request.messages).length / 4);
  const output = items.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const thinking = items.find(({ item }) => item.type === "reasoning")?.tokens.length ?? 0;
  return {
    id: newId("resp"),
    object: "response",
    created_at: Math.floor(Date.now() / 1000),
    status: isCut ? "incomplete" : "completed",
    error: null,
    incomplete_details: isCut ? { reason: "max_output_tokens" } : null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    model,
    output: items.map(({ item }) => item),
    parallel_tool_calls: true,
    previous_response_id: body.previous_response_id ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    store: body.store !== false,
    temperature: body.temperature ?? 1,
    text: body.text ?? { format: { type: "text" } },
    tool_choice: body.tool_choice ?? "auto",
    tools: body.tools ?? [],
    top_p: body.top_p ?? 1,
    truncation: "disabled",
    usage: {
      input_tokens: input,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: output,
      output_tokens_details: { reasoning_tokens: thinking },
      total_tokens: input + output,
    },
    metadata: {},
  };
}

function eventsOf(whole: Loose, items: readonly Item[]): Loose[] {
  const begun = { ...whole, status: "in_progress", incomplete_details: null, output: [], usage: null };
  return [
    { type: "response.created", response: begun },
    { type: "response.in_progress", response: begun },
    ...items.flatMap(({ item, tokens }, output_index) => eventsOfItem(item, tokens, output_index)),
    { type: `response.${whole.status}`, response: whole },
  ];
}

function eventsOfItem(item: Loose, tokens: readonly string[], output_index: number): Loose[] {
  const at = { item_id: item.id, output_index };
  const [part] = item.content ?? [];
  const name = part ? part.type : "function_call_arguments";
  const said = part ? { ...at, content_index: 0 } : at;
  const begun = { ...item, status: "in_progress", ...(part ? { content: [] } : { arguments: "" }) };
  return [
    { type: "response.output_item.added", output_index, item: begun },
    ...(part ? [{ type: "response.content_part.added", ...said, part: { ...part, text: "" } }] : []),
    ...tokens.map((delta) => ({ type: `response.${name}.delta`, ...said, delta })),
    part
      ? { type: `response.${name}.done`, ...said, text: part.text }
      : { type: `response.${name}.done`, ...said, name: item.name, arguments: item.arguments },
    ...(part ? [{ type: "response.content_part.done", ...said, part }] : []),
    { type: "response.output_item.done", output_index, item },
  ];
}

function newId(prefix: string): string {
  return `${prefix}_${randomBytes(24).toString("hex")}`;
}

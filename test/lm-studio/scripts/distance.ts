import type { GenerationRequest, Reply } from "../reply.ts";

/**
 * A model without tool calls that is asked how far a subject travelled: it plans one look at the track, then
 * answers with what it was told. For the README's walk on a machine without a model:
 *
 *     npm run -s stand-in -- --port 1234 --script test/lm-studio/scripts/distance.ts
 */
export function respond(request: GenerationRequest): Reply {
  const texts = (request.messages ?? []).map(({ content }) => JSON.stringify(content ?? ""));
  const [, subject = ""] = /How far did (\S+) travel/.exec(texts.join(" ")) ?? [];
  const [, kilometres] = /distance_km\\*":([\d.]+)/.exec(texts.at(-1) ?? "") ?? [];
  const turn =
    kilometres === undefined
      ? call("track_summary", { subject })
      : {
          thought: "I have it.",
          action: "answer",
          tool: null,
          arguments: null,
          answer: `${subject} travelled ${kilometres} km.`,
        };
  return { text: JSON.stringify(turn) };
}

function call(tool: string, args: Readonly<Record<string, string>>) {
  return { thought: "I need the track.", action: "call", tool, arguments: args, answer: null };
}

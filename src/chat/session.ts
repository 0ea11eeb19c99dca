import { AppError } from "../http/problem.ts";
import { uuidv7 } from "../http/uuid.ts";
import {
  type ConversationKey,
  keepSummary,
  newestTurns,
  type Summary,
  type Turn,
  useConversation,
} from "../store/conversations.ts";
import type { InteractionLog } from "../store/interaction-log.ts";
import type { Redact } from "../store/interaction-record.ts";
import type { Pool } from "../store/pool.ts";
import type { Call, Complete } from "./complete.ts";
import type { Limits } from "./limits.ts";
import type { Upstreams } from "./lm-studio/upstreams.ts";
import { estimateTokens, tokensPerMessage } from "./token-estimate.ts";

export interface SessionParts {
  readonly pool: Pool;
  readonly complete: Complete;
  readonly interactions: InteractionLog;
  readonly limits: Limits;
  readonly upstreams: Pick<Upstreams, "contextOf">;
  /** Of what a conversation keeps beside its interactions: its title and its summary. */
  readonly redact: Redact | undefined;
}

/** What a question of a session is, before the conversation is put in front of it. */
export interface SessionQuestion extends Omit<Call, "body"> {
  readonly sessionId: string;
  readonly model: string;
  readonly system?: string | undefined;
  readonly prompt: string;
  readonly maxTokens: number;
  /** What becomes of the oldest turns where not all of them fit. */
  readonly overflow: "drop" | "summarise";
}

/** A conversation as far as it goes with a question. */
export interface Continued {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  /** Turns that are sent word for word, that are in the summary, and that are left out. */
  readonly session: { readonly turns: number; readonly summarised: number; readonly dropped: number };
}

/** What LM Studio loads a model with unless told otherwise; for a model that it has not loaded yet. */
const contextTokensStandard = 4_096;
/** The estimate may be so much too low. */
const safety = 0.95;
const turnsMax = 500;
/** More than a token has in nearly every text: what is read of the store beyond the context, for a summary. */
const charsPerToken = 8;
const summaryTokensMax = 1_024;
const summaryCharsMax = 8_000;
const titleCharsMax = 80;
/** Of a prompt that is as long as a book only the beginning is looked at. */
const titledCharsMax = 2_000;

/**
 * The messages of a question with as much of its session before it as the model's context holds beside the
 * question and its answer, newest first. The answer's part is `maxTokens`, at most half of the context. Of
 * questions that are under way at once neither sees the other; their turns stand in the order in which they
 * were answered. Throws `StoreError` `database-away`.
 */
export async function continueSession(parts: SessionParts, question: SessionQuestion): Promise<Continued> {
  const { pool, interactions, limits, upstreams, redact = (text: string) => text } = parts;
  const { caller, sessionId, model, system, prompt } = question;
  const key = { caller, id: sessionId };
  const context = upstreams.contextOf(model) ?? contextTokensStandard;
  const summary = await useConversation(pool, {
    ...key,
    title: titleOf(redact(prompt.slice(0, titledCharsMax))) || sessionId,
    at: new Date(),
  });
  // The turn before this one may still be on its way from the journal.
  await interactions.settled();
  const { turns, total } = await newestTurns(pool, key, {
    after: summary?.until,
    turnsMax,
    charsMax: context * charsPerToken,
  });

  const tokens = (text: string) => tokensPerMessage + estimateTokens(text) * limits.ratios.of(model);
  const forAnswer = Math.min(question.maxTokens, context / 2);
  const roomBeside = (instructions: string) =>
    (context - forAnswer) * safety - tokens(instructions) - tokens(prompt);
  const continued = (sent: readonly Turn[], before: Summary | undefined): Continued => ({
    messages: messagesOf(withSummary(system, before), sent, prompt),
    session: {
      turns: sent.length,
      summarised: before?.turns ?? 0,
      dropped: Math.max(0, total - sent.length - (before?.turns ?? 0)),
    },
  });

  const room = roomBeside(withSummary(system, summary));
  const fitting = newestWithin(turns, room, tokens);
  const isWhole = fitting.length === turns.length;
  if (isWhole || question.overflow === "drop") return continued(fitting, summary);
  // Half of the room stays free: the next turns fit without a new summary.
  const kept = newestWithin(turns, room / 2, tokens);
  const older = turns.slice(0, turns.length - kept.length);
  const newer = await summarise(parts, question, { key, context, summary, older, tokens });
  if (!newer) return continued(fitting, summary);
  return continued(newestWithin(kept, roomBeside(withSummary(system, newer)), tokens), newer);
}

/** The newest turns that have room, in their order. */
function newestWithin(
  turns: readonly Turn[],
  room: number,
  tokens: (text: string) => number,
): readonly Turn[] {
  let left = room;
  const last = turns.findLastIndex(({ question, answer }) => {
    left -= tokens(question) + tokens(answer);
    return left < 0;
  });
  return turns.slice(last + 1);
}

function withSummary(system: string | undefined, summary: Summary | undefined): string {
  const before = summary && `What was said earlier in this conversation, in short:\n${summary.text}`;
  return [system, before].filter(Boolean).join("\n\n");
}

/** A conversation as a model takes it. */
export function messagesOf(
  instructions: string,
  turns: readonly Turn[],
  prompt: string,
): Continued["messages"] {
  return [
    // Templates take one system message, and only at the beginning.
    ...(instructions ? [{ role: "system", content: instructions }] : []),
    ...turns.flatMap(({ question, answer }) => [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ]),
    { role: "user", content: prompt },
  ];
}

const summariser =
  "You sum up conversations. Keep names, numbers, dates, places, decisions and open questions. " +
  "At most 200 words. Answer with the summary alone.";

/**
 * Has the model sum up the older turns, together with what was summed up before, and keeps that with the
 * conversation. `undefined` where no summary came of it: then the oldest turns are left out, which is better
 * than no answer. Throws where the caller has left.
 */
async function summarise(
  { pool, complete, redact = (text: string) => text }: SessionParts,
  { model, maxTokens: _max, overflow: _overflow, system: _system, prompt: _prompt, ...call }: SessionQuestion,
  {
    key,
    context,
    summary,
    older,
    tokens,
  }: {
    readonly key: ConversationKey;
    readonly context: number;
    readonly summary: Summary | undefined;
    readonly older: readonly Turn[];
    readonly tokens: (text: string) => number;
  },
): Promise<Summary | undefined> {
  const maxTokens = Math.floor(Math.min(summaryTokensMax, context / 4));
  const before = summary ? `Summary so far:\n${summary.text}\n\n` : "";
  const room = (context - maxTokens) * safety - tokens(summariser) - tokens(before);
  const read = newestWithin(older, room, tokens);
  const until = read.at(-1);
  // A turn that fills the context by itself cannot be read even for that.
  if (!until) return undefined;
  const said = read.map(({ question, answer }) => `User: ${question}\n\nAssistant: ${answer}`).join("\n\n");
  try {
    const { completion } = await complete({
      ...call,
      id: uuidv7(),
      // A door of its own: it is no turn of the conversation, and goes when that is deleted.
      route: "/chat/summary",
      stop: following(call.stop.signal),
      body: {
        model,
        messages: messagesOf(summariser, [], `${before}${said}`),
        max_tokens: maxTokens,
        temperature: 0,
      },
    });
    const summed = redact(completion.text.replaceAll("\0", "").toWellFormed());
    const text = summed.trim().slice(0, summaryCharsMax);
    if (text === "") return undefined;
    const made = { text, until, turns: (summary?.turns ?? 0) + read.length };
    await keepSummary(pool, key, made, { before: summary, turnIds: read.map(({ id }) => id) });
    return made;
  } catch (error) {
    if (call.stop.signal.aborted || !(error instanceof AppError)) throw error;
    call.log.warn({ err: error }, "conversation not summed up; its oldest turns are left out");
    return undefined;
  }
}

/** A stop of its own: what ends the summary does not end the answer, but whoever leaves ends both. */
function following(signal: AbortSignal): AbortController {
  const stop = new AbortController();
  if (signal.aborted) stop.abort(signal.reason);
  else signal.addEventListener("abort", () => stop.abort(signal.reason), { once: true });
  return stop;
}

/** The first words of a question, on one line. */
function titleOf(prompt: string): string {
  const line = prompt
    .slice(0, titleCharsMax * 4)
    .toWellFormed()
    .replace(/[\s\p{Cc}]+/gu, " ")
    .trim();
  if (line.length <= titleCharsMax) return line;
  const cut = line.slice(0, titleCharsMax - 1).toWellFormed();
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), titleCharsMax / 2)).trimEnd()}…`;
}

import { AppError } from "../http/problem.ts";
import { storeStatusOf } from "../store/errors.ts";

export type AgentErrorCode =
  | "tool-unknown"
  | "tool-arguments-invalid"
  | "tool-result-too-large"
  | "subject-unknown"
  | "chat-away"
  | "chat-refused"
  | "chat-invalid"
  | "model-no-answer"
  | "ask-timeout"
  | "client-gone";

/** What can go wrong with a question or with a tool. */
export class AgentError extends AppError<AgentErrorCode> {}

/** Status of each code that the agent server answers with besides the common ones. */
export const agentStatusOf = {
  ...storeStatusOf,
  "tool-unknown": 404,
  "tool-arguments-invalid": 400,
  "tool-result-too-large": 500,
  "subject-unknown": 404,
  "chat-away": 503,
  "chat-refused": 502,
  "chat-invalid": 502,
  "model-no-answer": 502,
  "ask-timeout": 504,
  // Nobody reads this one; it is nginx's number for it, and keeps the log from calling it a failure of ours.
  "client-gone": 499,
} satisfies Record<AgentErrorCode, number> & Readonly<Record<string, number>>;

/**
 * A refusal of the chat server, which the agent hands on as it is: code, status, words and when to try again.
 * The chat server documents the codes.
 */
export class ChatProblem extends Error {
  override readonly name = "ChatProblem";
  readonly code: string;
  readonly status: number;
  // Only declared: as a field it would be there, undefined, and be sent as a header.
  declare readonly retryAfterS?: number;

  constructor(code: string, status: number, detail: string, retryAfterS: number | undefined) {
    super(detail);
    this.code = code;
    this.status = status;
    if (retryAfterS !== undefined) this.retryAfterS = retryAfterS;
  }
}

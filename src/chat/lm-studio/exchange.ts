import type { AnswerEvent } from "../answers/answer-reader.ts";
import { ChatError } from "../chat-error.ts";
import type { Connections, Requester, Sent } from "./connections.ts";
import { type Endpoint, endpoints } from "./endpoints.ts";
import { classify } from "./errors.ts";
import { Patience, type PatienceOptions } from "./patience.ts";
import { PayloadReader, parsed } from "./payload-reader.ts";
import { type ServerSentEvent, SseParser } from "./sse.ts";

export interface Order {
  readonly endpoint: Endpoint;
  readonly path: string;
  /** Lines, each with its CRLF. */
  readonly headers: string;
  readonly body: string;
  /** Aborted when nobody wants the answer any more: the connection is closed at once. */
  readonly signal: AbortSignal;
  readonly patience: PatienceOptions;
  /** Is LM Studio there, and is the model still being loaded? */
  readonly look: () => Promise<{ readonly loading: boolean }>;
  /** Told of every part of the answer at once as it comes. What it throws ends the exchange. */
  readonly events: (events: readonly AnswerEvent[]) => void;
}

/** Bytes of an answer that is not a stream: an error, or vectors. */
const wholeBytesMax = 64 * 1024 * 1024;
/** Events that are held back until the first token; LM Studio sends two or three. */
const earlyMax = 16;

/**
 * One request to LM Studio and its answer. `done` resolves after the proper end of the answer and at nothing
 * else; it rejects with a `ChatError`, with what the connection failed of, or with the reason of `signal`.
 */
export class Exchange implements Requester {
  readonly done: Promise<void>;
  readonly #order: Order;
  readonly #patience: Patience;
  readonly #resolve: () => void;
  readonly #reject: (reason: unknown) => void;
  readonly #sent: Sent;
  /** Reads a stream; otherwise the parts of what comes in one piece are kept. */
  #parser: SseParser | undefined;
  readonly #payloads = new PayloadReader();
  readonly #parts: Buffer[] = [];
  /** What came before the first token, and is passed on with it: until then the answer may still fail and be asked again. */
  readonly #early: AnswerEvent[] = [];
  #bytes = 0;
  #status = 0;
  #isOver = false;
  /** True once the request was written: before that, LM Studio cannot have seen it. */
  isSent = false;
  /** True once LM Studio has begun to answer. */
  isAnswered = false;
  /** True once a part of the answer was passed on: then it cannot be asked for again. */
  isPassedOn = false;
  /** When what refused for now wants to be asked again. */
  retryAfterS: number | undefined;

  constructor(connections: Connections, order: Order) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#order = order;
    this.#patience = new Patience(order.patience, order.look, this.#fail);
    order.signal.addEventListener("abort", this.#leave, { once: true });
    this.#sent = connections.post(order, this);
  }

  onSent(): void {
    this.isSent = true;
  }

  onHead(status: number, headers: ReadonlyMap<string, string>): void {
    this.isAnswered = true;
    this.#status = status;
    const retryAfter = headers.get("retry-after") ?? "";
    if (status === 200 && headers.get("content-type")?.startsWith("text/event-stream")) {
      this.#parser = new SseParser();
    } else if (/^\d{1,6}$/.test(retryAfter)) this.retryAfterS = Number(retryAfter);
  }

  /** LM Studio sends each token as a chunk of its own, and one read of the socket may bring many. */
  onBody(bytes: Buffer): void {
    // After its end only the connection's turn is waited for, without which it could not be used again.
    if (this.#isOver) return;
    try {
      if (this.#parser) this.#read(this.#parser.push(bytes));
      else this.#keep(bytes);
    } catch (error) {
      this.#fail(error);
    }
  }

  onEnd(): void {
    if (this.#isOver) {
      this.#patience.end();
      return;
    }
    try {
      if (this.#parser)
        throw new ChatError("upstream-cut", "LM Studio's stream ended before its answer did.");
      this.#pass([{ event: "whole", value: this.#whole() }]);
      this.#finish();
      this.#patience.end();
    } catch (error) {
      this.#fail(error);
    }
  }

  onFailure(error: unknown): void {
    this.#fail(error);
  }

  /** Takes the events up to the first that is none: tokens that came before an error still count. */
  #read(events: readonly ServerSentEvent[]): void {
    const { endsWithDone, lastEvents } = endpoints[this.#order.endpoint] as {
      endsWithDone: boolean;
      lastEvents: readonly string[];
    };
    const answers: AnswerEvent[] = [];
    let failure: unknown;
    let isLast = false;
    for (const { event, data } of events) {
      if (data === "[DONE]") {
        isLast = endsWithDone;
        if (isLast) break;
        continue;
      }
      const answer = this.#payloads.read(event, data);
      failure = failureOf(event, data, answer?.value);
      if (!answer || failure !== undefined) break;
      if (event !== "" && beforeTokens.test(event) && this.#early.length < earlyMax) {
        this.#early.push(answer);
        continue;
      }
      answers.push(answer);
      isLast = lastEvents.length > 0 && lastEvents.includes(event || typeOf(answer.value));
      if (isLast) break;
    }
    if (answers.length > 0) this.#pass(answers);
    if (failure !== undefined) throw failure;
    if (isLast) this.#finish();
  }

  #pass(answers: readonly AnswerEvent[]): void {
    this.#patience.heard();
    this.isPassedOn = true;
    this.#order.events(this.#early.length === 0 ? answers : [...this.#early.splice(0), ...answers]);
  }

  #keep(bytes: Buffer): void {
    this.#bytes += bytes.length;
    if (this.#bytes > wholeBytesMax) {
      throw new ChatError("upstream-invalid", "LM Studio's answer is far too long.");
    }
    this.#parts.push(Buffer.from(bytes));
  }

  /** The answer that came in one piece. A proxy in front of LM Studio may gather a stream up: it is as good. */
  #whole(): unknown {
    const text = Buffer.concat(this.#parts).toString();
    const value = parsed(text);
    const { list } = endpoints[this.#order.endpoint];
    if (
      this.#status === 200 &&
      Array.isArray((value as Record<string, unknown> | null | undefined)?.[list])
    ) {
      return value;
    }
    if (value === undefined && this.#status < 300) throw foreign();
    throw classify(value ?? plain(text), this.#status, this.retryAfterS);
  }

  /**
   * The answer is whole. Its connection goes on until the stream itself has ended; one that stays open is closed
   * when the patience with it ends.
   */
  #finish(): void {
    this.#isOver = true;
    this.#order.signal.removeEventListener("abort", this.#leave);
    this.#resolve();
  }

  readonly #leave = () => this.#fail(this.#order.signal.reason);

  readonly #fail = (error: unknown) => {
    this.#patience.end();
    if (!this.#isOver) {
      this.#isOver = true;
      this.#order.signal.removeEventListener("abort", this.#leave);
      this.#reject(error);
    }
    this.#sent.abort(this);
  };
}

/** These of `/v1/responses` come at once, while the prompt is still to be read. */
const beforeTokens = /^response\.(created|queued|in_progress)$/;

function failureOf(event: string, data: string, value: unknown): ChatError | undefined {
  if (event === "error" && value === undefined) return classify(plain(data));
  if (typeof value !== "object" || value === null) {
    return new ChatError("upstream-invalid", "LM Studio sent an event that is no part of an answer.");
  }
  return event === "error" || (value as { error?: unknown }).error ? classify(value) : undefined;
}

/** An error that is no JSON, in the form of one that is. Pages are not for reading here. */
function plain(text: string): { message: string } | undefined {
  const words = text.slice(0, 1_000).trim();
  return words.startsWith("<") ? undefined : { message: words };
}

function typeOf(value: unknown): string {
  const { type } = value as { type?: unknown };
  return typeof type === "string" ? type : "";
}

function foreign(): ChatError {
  return new ChatError(
    "upstream-invalid",
    "What answers at DEEPSEEK_API_URL does not speak as LM Studio does.",
  );
}

import { createInterface, type Interface } from "node:readline";
import { text as wholeText } from "node:stream/consumers";
import { styleText } from "node:util";
import type { Config } from "../config/config.ts";
import { uuidv7 } from "../http/uuid.ts";
import {
  type ChatAddress,
  type ChatAnswer,
  ChatClient,
  ChatClientError,
  chatAddress,
} from "./chat-client.ts";
import { exitInterrupted, untilInterrupted, untilNobodyReads } from "./leaving.ts";
import { oneLine, plain } from "./plain-text.ts";

/** How to talk, as the command line says. */
export interface ChatOptions {
  readonly session?: string | undefined;
  readonly model?: string | undefined;
  readonly system?: string | undefined;
  /** The whole answer as JSON, for one question. */
  readonly json?: boolean | undefined;
  /** False: print an answer once it is whole. */
  readonly stream?: boolean | undefined;
  /** False: hide the model's thinking, which only a terminal is shown. */
  readonly reasoning?: boolean | undefined;
}

/** Where questions come from, where answers go, and where what is wrong. */
export interface ChatStreams {
  readonly in: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly out: NodeJS.WritableStream & { readonly isTTY?: boolean };
  readonly err: NodeJS.WritableStream;
}

/** `pugmark chat`: talks to the model of this machine's station. Gives the exit code. */
export async function chatCommand(
  config: Config,
  question: string | undefined,
  options: ChatOptions,
): Promise<number> {
  const streams = { in: process.stdin, out: process.stdout, err: process.stderr };
  return chat(question, options, chatAddress(config), streams, untilInterrupted());
}

/**
 * Asks one question, or, without one and on a terminal, as many as the user likes. Without either, the question is
 * what comes in. Gives the exit code: 0, 1 where there was no answer, 2 where there was no question, 130 where
 * `stop` ended it.
 */
export async function chat(
  question: string | undefined,
  options: ChatOptions,
  address: ChatAddress,
  streams: ChatStreams,
  stop: AbortSignal,
): Promise<number> {
  await using client = new ChatClient(address);
  const talk = new Talk(client, options, streams);
  if (question === undefined && streams.in.isTTY && !options.json) return await talk.converse();
  const asked = (question ?? (streams.in.isTTY ? "" : await wholeText(streams.in))).trim();
  if (asked === "") {
    talk.complain('a question is needed: pugmark chat "What is a pugmark?"');
    return 2;
  }
  return await talk.ask(asked, options.session, stop);
}

const help = `  /new   begin a new conversation
  /quit  leave (Ctrl+D)
  Ctrl+C stops an answer, or leaves where there is none.
`;

/** The words of one run of the command. */
class Talk {
  readonly #client: ChatClient;
  readonly #options: ChatOptions;
  readonly #streams: ChatStreams;
  /** Aborts when nobody reads answers any more. */
  readonly #left: AbortSignal;
  /** Turns that were left out of what the model saw, as last told. */
  #droppedTold = 0;

  constructor(client: ChatClient, options: ChatOptions, streams: ChatStreams) {
    this.#client = client;
    this.#options = options;
    this.#streams = streams;
    this.#left = untilNobodyReads(streams.out);
  }

  /** Question by question, in one conversation until `/new`. */
  async converse(): Promise<number> {
    const { in: input, out } = this.#streams;
    let session = this.#options.session ?? newSession();
    let answering: AbortController | undefined;
    const lines = createInterface({ input, output: out, terminal: true, prompt: this.#style("bold", "> ") });
    let isClosed = false;
    this.#left.addEventListener("abort", () => lines.close());
    lines.once("close", () => {
      isClosed = true;
    });
    lines.on("SIGINT", () => {
      if (answering) answering.abort();
      else if (lines.line === "") lines.close();
      else clear(lines);
    });
    this.#note(`Conversation ${session}. /new begins another, /quit leaves, /help says more.`);
    lines.prompt();
    for await (const line of lines) {
      const asked = line.trim();
      if (asked === "/quit" || asked === "/exit") break;
      if (asked === "/new") {
        session = newSession();
        this.#droppedTold = 0;
        this.#note(`Conversation ${session}.`);
      } else if (asked.startsWith("/")) out.write(help);
      else if (asked !== "") {
        answering = new AbortController();
        await this.ask(asked, session, answering.signal);
        answering = undefined;
      }
      if (!isClosed) lines.prompt();
    }
    lines.close();
    out.write("\n");
    return 0;
  }

  /** Prints the answer to one question. Gives the exit code. */
  async ask(prompt: string, session: string | undefined, interrupted: AbortSignal): Promise<number> {
    const stop = AbortSignal.any([interrupted, this.#left]);
    const { model, system, json, stream = true } = this.#options;
    const question = {
      prompt,
      ...(session === undefined ? {} : { session_id: session }),
      ...(model === undefined ? {} : { model }),
      ...(system === undefined ? {} : { system }),
    };
    try {
      if (json) {
        const answer = await this.#client.ask(question, stop);
        this.#streams.out.write(`${JSON.stringify(answer, null, 2)}\n`);
      } else if (stream) await this.#askStreamed(question, stop);
      else await this.#askWhole(question, stop);
      return 0;
    } catch (error) {
      if (this.#left.aborted) return 0;
      if (stop.aborted) {
        this.#streams.out.write("\n");
        this.#note("Stopped.");
        return exitInterrupted;
      }
      if (!(error instanceof ChatClientError)) throw error;
      this.complain(error.message);
      return 1;
    }
  }

  complain(line: string): void {
    const { err } = this.#streams;
    err.write(`${styleText("red", "pugmark:", { stream: err })} ${oneLine(line)}\n`);
  }

  async #askStreamed(question: object, stop: AbortSignal): Promise<void> {
    const { out } = this.#streams;
    let last: "token" | "reasoning" | undefined;
    try {
      for await (const part of this.#client.stream(question, stop)) {
        if (part.event === "done") {
          out.write("\n");
          last = undefined;
          this.#remark(part.answer);
        } else if (part.event === "token") {
          // The thinking ends where the answer begins, which models set off by blank lines themselves.
          const text = last === "token" ? plain(part.text) : plain(part.text).trimStart();
          if (text === "") continue;
          out.write(last === "reasoning" ? `\n\n${text}` : text);
          last = "token";
        } else if (this.#showsReasoning) {
          out.write(this.#style("dim", plain(part.text)));
          last = "reasoning";
        }
      }
    } catch (error) {
      // What is wrong goes on a line of its own.
      if (last && !stop.aborted) out.write("\n");
      throw error;
    }
  }

  async #askWhole(question: object, stop: AbortSignal): Promise<void> {
    const { out } = this.#streams;
    const answer = await this.#client.ask(question, stop);
    if (answer.reasoning && this.#showsReasoning) {
      out.write(`${this.#style("dim", plain(answer.reasoning).trim())}\n\n`);
    }
    out.write(`${plain(answer.response).trim()}\n`);
    this.#remark(answer);
  }

  /** What is piped on is the answer alone. */
  get #showsReasoning(): boolean {
    return this.#options.reasoning !== false && this.#streams.out.isTTY === true;
  }

  /** What the reader could not tell from the answer itself. */
  #remark({ finish_reason, session }: ChatAnswer): void {
    if (finish_reason === "length") this.#note("The answer was cut off: it had all the tokens it may have.");
    const dropped = session?.dropped ?? 0;
    if (dropped > this.#droppedTold) {
      this.#note(
        dropped === 1
          ? "The oldest turn no longer fits into the model's context and was left out."
          : `The oldest ${dropped} turns no longer fit into the model's context and were left out.`,
      );
    }
    this.#droppedTold = dropped;
  }

  /** Beside the answer. */
  #note(line: string): void {
    const { err } = this.#streams;
    err.write(`${styleText("dim", line, { stream: err })}\n`);
  }

  #style(format: "bold" | "dim", text: string): string {
    return styleText(format, text, { stream: this.#streams.out });
  }
}

function clear(lines: Interface): void {
  lines.write(null, { ctrl: true, name: "e" });
  lines.write(null, { ctrl: true, name: "u" });
}

function newSession(): string {
  return `cli-${uuidv7()}`;
}

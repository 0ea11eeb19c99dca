import { styleText } from "node:util";
import { type Static, Type } from "typebox";
import { Check } from "typebox/value";
import { Agent as Connections, fetch } from "undici";
import { originOf } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { oneLine, plain } from "./plain-text.ts";
import { internalKey } from "./station.ts";

export interface AskOptions {
  /** The agent server's root. */
  readonly baseUrl: string;
  readonly key?: string | undefined;
  /** The whole answer as JSON instead of text. */
  readonly json: boolean;
}

/** Where the answer goes, and where what is wrong. */
export interface AskStreams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

/** `pugmark ask`: asks this machine's station. Gives the exit code. */
export async function askCommand(config: Config, question: string, json: boolean): Promise<number> {
  const baseUrl = originOf({ host: config.HOST, port: config.PORT });
  const key = config.PUGMARK_API_KEYS ? internalKey(config) : undefined;
  return ask(question, { baseUrl, key, json }, { out: process.stdout, err: process.stderr });
}

/**
 * Asks an agent server and prints the answer, what in it nothing bears out, and what was looked up. What went
 * wrong is one line that says what to do. Gives the exit code: 0, or 1 where there is no answer.
 */
export async function ask(
  question: string,
  { baseUrl, key, json }: AskOptions,
  { out, err }: AskStreams,
): Promise<number> {
  const fail = (line: string) => {
    err.write(`${styleText("red", "pugmark:", { stream: err })} ${oneLine(line)}\n`);
    return 1;
  };
  // A slow model may take longer than the five minutes after which fetch gives up.
  const connections = new Connections({ headersTimeout: 0, bodyTimeout: 0 });
  try {
    const response = await fetch(`${baseUrl}/ask`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify({ question }),
      dispatcher: connections,
    });
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) return fail(refusal(response.status, body, response.headers.get("retry-after")));
    if (!Check(Answer, body)) return fail(`what answers at ${baseUrl} is not Pugmark's agent; see PORT`);
    out.write(json ? `${JSON.stringify(body, null, 2)}\n` : answerText(body, out));
    return 0;
  } catch (error) {
    const refused = error instanceof Error && codeOf(error.cause) === "ECONNREFUSED";
    return fail(
      refused
        ? `the station is not running: nothing answers at ${baseUrl}. Start it with \`npm start\`.`
        : `the connection to ${baseUrl} broke off before the answer; \`npm run -s pugmark -- status\` says how the station is`,
    );
  } finally {
    await connections.close();
  }
}

const Answer = Type.Object({
  answer: Type.String(),
  grounded: Type.Boolean(),
  unsupported: Type.Array(Type.String()),
  evidence: Type.Array(
    Type.Object({ tool: Type.String(), arguments: Type.Unknown(), result: Type.Unknown() }),
  ),
});

const ProblemBody = Type.Object({ detail: Type.String(), code: Type.String() });

function refusal(status: number, body: unknown, retryAfter: string | null): string {
  if (!Check(ProblemBody, body)) return `the agent answered ${status} without saying why`;
  if (body.code.startsWith("key-")) return `${body.detail} Set PUGMARK_API_KEYS as the station has it.`;
  return retryAfter === null ? body.detail : `${body.detail} Try again in ${retryAfter} s.`;
}

function answerText(
  { answer, grounded, unsupported, evidence }: Static<typeof Answer>,
  out: AskStreams["out"],
): string {
  const style = (format: Parameters<typeof styleText>[0], text: string) =>
    styleText(format, text, { stream: out });
  const doubt =
    unsupported.length > 0
      ? `Not grounded: nothing that was looked up bears out ${unsupported.map((claim) => `“${oneLine(claim)}”`).join(", ")}.`
      : "Not grounded: nothing was looked up.";
  const lines = evidence.map(({ tool, arguments: args, result }) => {
    const call = `${oneLine(tool)}(${oneLine(argumentsText(args))})`;
    return `  ${style("cyan", call)} ${style("dim", shortened(oneLine(JSON.stringify(result) ?? "")))}`;
  });
  return [
    plain(answer),
    ...(grounded ? [] : ["", style(["yellow", "bold"], doubt)]),
    ...(lines.length > 0 ? ["", style("dim", "Looked up:"), ...lines] : []),
    "",
  ].join("\n");
}

function argumentsText(args: unknown): string {
  if (typeof args !== "object" || args === null) return "";
  return Object.entries(args)
    .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}

const lineMax = 160;

function shortened(text: string): string {
  return text.length <= lineMax ? text : `${text.slice(0, lineMax - 1)}…`;
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

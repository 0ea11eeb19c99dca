import type { FastifyBaseLogger } from "fastify";
import type { TSchema } from "typebox";
import { Check, Errors } from "typebox/value";
import type { Config } from "../../config/config.ts";
import { EdgeError, toProblem } from "../../http/problem.ts";
import { uuidv7 } from "../../http/uuid.ts";
import type { ClaimedLine, LineResult } from "../../store/batch-lines.ts";
import { askedBody } from "../asked-body.ts";
import type { Call, Complete } from "../complete.ts";
import { openAiAnswer } from "../openai-answer.ts";
import { blamedParam, openAiError } from "../openai-format.ts";
import { type AskedOf, batchEndpoints } from "./endpoints.ts";
import { type Failing, failingOf } from "./failing.ts";

export interface RunParts {
  readonly config: Config;
  readonly complete: Complete;
  readonly statusOf: Readonly<Record<string, number>>;
  readonly log: FastifyBaseLogger;
}

/** What came of asking: an answer or refusal to keep, or a failure that may pass. */
export type Outcome =
  | { readonly result: LineResult }
  | { readonly passing: Exclude<Failing, "final">; readonly error: unknown; readonly result: LineResult };

/**
 * Asks a model one line of a batch, as its route would. Never throws: what a line did wrong is its result. A
 * failure that may pass comes with the result that it would be, for when it has come once too often.
 */
export async function runLine(line: ClaimedLine, parts: RunParts, stop: AbortController): Promise<Outcome> {
  const id = uuidv7();
  const key = { batchId: line.batchId, line: line.line, requestId: id };
  try {
    const body: AskedOf = JSON.parse(line.body);
    const call = callOf(id, line, body, parts, stop);
    const { completion } = await parts.complete(call);
    const { usage } = completion;
    return {
      result: {
        ...key,
        statusCode: 200,
        response: openAiAnswer(
          call.endpoint,
          completion,
          body.encoding_format === "base64" ? "base64" : "float",
        ),
        inputTokens: usage?.prompt_tokens ?? 0,
        outputTokens: usage?.completion_tokens ?? 0,
        reasoningTokens: usage?.completion_tokens_details?.reasoning_tokens ?? 0,
      },
    };
  } catch (error) {
    const problem = toProblem(error, id, parts.statusOf);
    const result: LineResult = {
      ...key,
      statusCode: problem.status,
      response: JSON.stringify(openAiError(problem, blamedParam(error))),
      inputTokens: 0,
      outputTokens: 0,
      reasoningTokens: 0,
    };
    if (problem.code === "internal") parts.log.error({ err: error, ...key }, "line of a batch failed");
    const failing = failingOf(problem);
    return failing === "final" ? { result } : { passing: failing, error, result };
  }
}

/** Throws an `AppError` where the line asks for what its route would refuse. */
function callOf(id: string, line: ClaimedLine, body: AskedOf, parts: RunParts, stop: AbortController): Call {
  const asked = batchEndpoints[line.endpoint];
  if (!asked) throw new EdgeError("request-invalid", `${line.endpoint} is no endpoint of batches here.`);
  if (!Check(asked.schema, body)) throw invalidBody(asked.schema, body);
  return {
    id,
    route: line.endpoint,
    endpoint: asked.endpoint,
    priority: "batch",
    caller: line.caller,
    requestId: id,
    runId: undefined,
    sessionId: line.batchId,
    body: askedBody(asked.endpoint, body, parts.config),
    separates: asked.endpoint === "chat",
    caching: asked.caching(body),
    stop,
    log: parts.log,
  };
}

/** Names the field that is wrong, as the route does by the validator of its server. */
function invalidBody(schema: TSchema, body: AskedOf): EdgeError {
  const [first] = Errors(schema, body);
  if (!first) return new EdgeError("request-invalid", "The body is not what /docs describes.");
  const { instancePath, message, params } = first;
  const missingProperty = "requiredProperties" in params ? params.requiredProperties[0] : undefined;
  const fault = missingProperty === undefined ? message : `must have required property '${missingProperty}'`;
  const error = new EdgeError("request-invalid", `body${instancePath} ${fault}`);
  return Object.assign(error, { validation: [{ instancePath, params: { missingProperty } }] });
}

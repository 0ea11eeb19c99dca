import { STATUS_CODES } from "node:http";
import { Type } from "typebox";

/** Failures that any server here can answer with; each server adds its own codes to these. */
export type EdgeErrorCode =
  | "request-invalid"
  | "request-timeout"
  | "body-too-large"
  | "headers-too-large"
  | "media-type-unsupported"
  | "route-unknown"
  | "host-foreign"
  | "origin-foreign"
  | "key-missing"
  | "key-unknown"
  | "token-invalid"
  | "token-expired"
  | "token-keys-away"
  | "scope-missing"
  | "not-ready"
  | "internal";

export const edgeStatusOf = {
  "request-invalid": 400,
  "request-timeout": 408,
  "body-too-large": 413,
  "headers-too-large": 431,
  "media-type-unsupported": 415,
  "route-unknown": 404,
  "host-foreign": 403,
  "origin-foreign": 403,
  "key-missing": 401,
  "key-unknown": 401,
  "token-invalid": 401,
  "token-expired": 401,
  "token-keys-away": 503,
  "scope-missing": 403,
  "not-ready": 503,
  internal: 500,
} satisfies Record<EdgeErrorCode, number>;

/** A failure with a stable code. `detail` is shown to the caller: no path, query, key or stack in it. */
export class AppError<Code extends string> extends Error {
  readonly code: Code;
  /** Seconds after which trying again can help; absent where it cannot or where nobody knows. */
  declare readonly retryAfterS?: number;

  constructor(code: Code, detail: string, options: ErrorOptions & { retryAfterS?: number } = {}) {
    super(detail, options);
    this.name = new.target.name;
    this.code = code;
    if (options.retryAfterS !== undefined) this.retryAfterS = options.retryAfterS;
  }
}

export class EdgeError extends AppError<EdgeErrorCode> {}

/** RFC 9457, with the code and the id of the request. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: "urn:problem:<code>" }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String(),
    instance: Type.String({ description: "id of the request, as in the x-request-id header" }),
    code: Type.String({ description: "stable; every code is listed in docs/errors.md" }),
  },
  { $id: "Problem" },
);

export interface ProblemBody {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly instance: string;
  readonly code: string;
}

const meanings: Readonly<Record<number, string>> = {
  400: "The request is not what is described here",
  401: "A key is needed, or the key or token is not taken",
  403: "The key or user lacks the scope, or the request came from a foreign host or origin",
  404: "There is no such thing",
  413: "The body is too large",
  415: "The body is of another media type",
  503: "The database does not answer, or too much is waiting: try again after Retry-After seconds",
};

/**
 * Response schemas for the failures of a route, to be spread into its responses: statuses, or statuses with
 * what they mean there. What every route can answer (401, 403; 400, 413 and 415 where it
 * has a body) need not be named.
 */
export function problems(
  ...answers: readonly (number | Readonly<Record<number, string>>)[]
): Record<never, never> {
  const described = answers.map((answer) =>
    typeof answer === "number" ? { [answer]: meanings[answer] } : answer,
  );
  return Object.fromEntries(
    Object.entries(Object.assign({}, ...described) as Record<string, string>).map(([status, description]) => [
      status,
      { description, content: { "application/problem+json": { schema: Type.Ref("Problem") } } },
    ]),
  );
}

/**
 * What a caller may know of an error. A code that `statusOf` knows keeps its detail; anything else was not
 * planned, and its words may hold a path, a query or a key, so it becomes a bare `internal`.
 */
export function toProblem(
  error: unknown,
  requestId: string,
  statusOf: Readonly<Record<string, number>>,
): ProblemBody {
  const known = knownError(error, statusOf);
  return {
    type: `urn:problem:${known.code}`,
    title: STATUS_CODES[known.status] ?? "Error",
    status: known.status,
    detail: known.detail,
    instance: requestId,
    code: known.code,
  };
}

/** Fastify's own refusals, by its codes. */
const fastifyCodes: Readonly<Record<string, EdgeErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: "body-too-large",
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "media-type-unsupported",
  FST_ERR_CTP_EMPTY_JSON_BODY: "request-invalid",
  FST_ERR_CTP_INVALID_JSON_BODY: "request-invalid",
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: "request-invalid",
  FST_ERR_VALIDATION: "request-invalid",
  FST_ERR_BAD_URL: "request-invalid",
  FST_ERR_MAX_PARAM_LENGTH: "request-invalid",
  FST_STATIC_FORBIDDEN_PATH: "route-unknown",
  FST_ERR_ROUTE_MISSING_HANDLER: "route-unknown",
};

function knownError(error: unknown, statusOf: Readonly<Record<string, number>>) {
  const unplanned = {
    code: "internal",
    status: 500,
    detail: "Something went wrong here; the log has it under this request's id.",
  };
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return unplanned;
  const code = fastifyCodes[error.code] ?? error.code;
  const status = statusOf[code];
  return status === undefined ? unplanned : { code, status, detail: error.message };
}

import type { RejectionCode } from "../../../src/tracking/fix.ts";

/** Why a function does not do what was asked. The codes are API, and mean what they mean at a station. */
export type RefusalCode =
  | "request-invalid"
  | "body-too-large"
  | "media-type-unsupported"
  | "route-unknown"
  | "key-missing"
  | "key-unknown"
  | "device-foreign"
  | "body-unrecognised"
  | "too-many-positions"
  | "inbox-away"
  | "internal";

/** Status of each of its codes; what is wrong with the one position of a report is a 400. */
export const refusalStatusOf = {
  "request-invalid": 400,
  "body-too-large": 413,
  "media-type-unsupported": 415,
  "route-unknown": 404,
  "key-missing": 401,
  "key-unknown": 401,
  "device-foreign": 403,
  "body-unrecognised": 400,
  "too-many-positions": 413,
  "inbox-away": 503,
  internal: 500,
} satisfies Record<RefusalCode, number>;

/** A failure whose words the sender may read. */
export class Refusal extends Error {
  readonly code: RefusalCode | RejectionCode;

  constructor(code: RefusalCode | RejectionCode, detail: string) {
    super(detail);
    this.code = code;
  }
}

/** The answer (RFC 9457) to a request that failed. What was not planned goes to the log, and to nobody else. */
export function problemResponse(error: unknown): Response {
  const instance = crypto.randomUUID();
  const { code, message } =
    error instanceof Refusal ? error : new Refusal("internal", "Something went wrong; the log has it.");
  if (code === "internal" || code === "inbox-away") console.error(instance, error);
  const status = code in refusalStatusOf ? refusalStatusOf[code as RefusalCode] : 400;
  const problem = {
    type: `urn:problem:${code}`,
    title: titles[status],
    status,
    detail: message,
    instance,
    code,
  };
  return new Response(JSON.stringify(problem), {
    status,
    headers: {
      "content-type": "application/problem+json",
      ...(status === 503 ? { "retry-after": "30" } : {}),
    },
  });
}

const titles: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  413: "Payload Too Large",
  415: "Unsupported Media Type",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

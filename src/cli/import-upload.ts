import { setTimeout as wait } from "node:timers/promises";
import { type Static, Type } from "typebox";
import { Check } from "typebox/value";
import { fetch } from "undici";

export interface ApiAddress {
  /** The API's root. */
  readonly baseUrl: string;
  readonly key?: string | undefined;
}

export type Ingested = Static<typeof Ingested>;
const Ingested = Type.Object({
  accepted: Type.Integer(),
  duplicates: Type.Integer(),
  rejected: Type.Array(Type.Object({ index: Type.Integer(), code: Type.String(), detail: Type.String() })),
});
const Stated = Type.Object({ changed: Type.Boolean() });
const Problem = Type.Object({ code: Type.String(), detail: Type.String() });

const attemptsMax = 8;
const pauseMaxMs = 10_000;

/** The station did not take it; the message says what to do. */
export class UploadError extends Error {
  override readonly name = "UploadError";
}

/**
 * Sends to the station's API. Whatever a later attempt can help is tried again, since the same positions sent
 * twice change nothing; only a station that has never answered is given up at once.
 */
export class Upload {
  readonly #address: ApiAddress;
  #hasAnswered = false;

  constructor(address: ApiAddress) {
    this.#address = address;
  }

  /** Stores positions, given as JSON text of the native form. Throws `UploadError`. */
  async positions(items: readonly string[]): Promise<Ingested> {
    const answer = await this.#post("/api/v1/positions", `[${items.join(",")}]`);
    if (!Check(Ingested, answer)) throw this.#foreign();
    return answer;
  }

  /** Says that a device's fixes between two times are of a subject. Throws `UploadError`. */
  async deployment(statement: {
    readonly device: string;
    readonly subject: string;
    readonly species?: string | undefined;
    readonly first_at: string;
    readonly last_at: string;
  }): Promise<void> {
    const answer = await this.#post("/api/v1/deployments", JSON.stringify(statement));
    if (!Check(Stated, answer)) throw this.#foreign();
  }

  async #post(path: string, body: string): Promise<unknown> {
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await this.#try(path, body);
      if ("answer" in outcome) return outcome.answer;
      if (!outcome.canRetry || attempt === attemptsMax) throw new UploadError(outcome.reason);
      await wait(outcome.pauseMs ?? Math.min(pauseMaxMs, 250 * 2 ** attempt));
    }
  }

  async #try(path: string, body: string): Promise<Outcome> {
    const { baseUrl, key } = this.#address;
    try {
      const response = await fetch(`${baseUrl}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
        body,
      });
      const answer: unknown = await response.json();
      this.#hasAnswered = true;
      if (response.ok) return { answer };
      const retryAfter = response.headers.get("retry-after");
      return {
        reason: Check(Problem, answer) ? answer.detail : `the station answered ${response.status}`,
        canRetry: [429, 502, 503, 504].includes(response.status),
        ...(retryAfter !== null && /^\d{1,4}$/.test(retryAfter)
          ? { pauseMs: Math.min(pauseMaxMs, Number(retryAfter) * 1000) }
          : {}),
      };
    } catch {
      return {
        reason: this.#hasAnswered
          ? `the connection to ${baseUrl} broke off`
          : `the station is not running: nothing answers at ${baseUrl}. Start it with \`npm start\`.`,
        canRetry: this.#hasAnswered,
      };
    }
  }

  #foreign(): UploadError {
    return new UploadError(`what answers at ${this.#address.baseUrl} is not Pugmark's API; see API_PORT`);
  }
}

type Outcome =
  | { readonly answer: unknown }
  | { readonly reason: string; readonly canRetry: boolean; readonly pauseMs?: number };

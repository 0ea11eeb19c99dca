import type { Call } from "./complete.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";
import type { RequestKey } from "./request-key.ts";

/** What was made of a body on the way to an answer from the cache. */
export interface SeenBody {
  readonly parsed: object;
  readonly endpoint: Endpoint;
  readonly caller: string;
  readonly shownKey: string | undefined;
  readonly body: Call["body"];
  readonly key: RequestKey;
}

/** Longer ones take their time anyway. */
const charsMax = 16 * 1024;
const totalCharsMax = 4 * 1024 * 1024;

/**
 * Bodies that were answered from the cache, by their very bytes: who asks the same again is spared the reading,
 * checking and hashing of it, which is most of what such an answer costs.
 */
export class SeenBodies {
  readonly #seen = new Map<string, SeenBody>();
  #chars = 0;

  /** The bytes as a name for them, or `undefined` where they are too many. */
  nameOf(bytes: Buffer): string | undefined {
    return bytes.length <= charsMax ? bytes.toString("latin1") : undefined;
  }

  get(name: string): SeenBody | undefined {
    return this.#seen.get(name);
  }

  keep(name: string, seen: SeenBody): void {
    if (!this.#seen.has(name)) this.#chars += name.length;
    this.#seen.set(name, seen);
    for (const oldest of this.#seen.keys()) {
      if (this.#chars <= totalCharsMax) break;
      this.#seen.delete(oldest);
      this.#chars -= oldest.length;
    }
  }
}

import { createLocalJWKSet, errors, type JWTVerifyGetKey } from "jose";
import { EdgeError } from "./problem.ts";

/** After so long the keys are asked for again, so that one that was withdrawn ceases to count. */
const freshMs = 10 * 60_000;
/** A key that a fresh answer did not have is not there: who makes up names of keys costs no more than this. */
const unknownRestMs = 30_000;
/** A project that did not answer is left alone for a moment. */
const failureRestMs = 5_000;
const timeoutMs = 3_000;
/** A project has a handful of keys, of less than 1 KiB each. */
const answerBytesMax = 256 * 1024;

/**
 * The public keys by which a project signs its users' tokens, for `jwtVerify`. Fetched when first needed, renewed
 * behind the requests, and kept for as long as the project is away: what has been learnt goes on working.
 * Throws `EdgeError` `token-keys-away` where a key is not at hand and cannot be had.
 */
export function projectKeys(url: URL, elapsedMs = () => performance.now()): JWTVerifyGetKey {
  let keys: KeySet | undefined;
  let fetchedAt = Number.NEGATIVE_INFINITY;
  let failedAt = Number.NEGATIVE_INFINITY;
  let failure: unknown;
  let fetching: Promise<void> | undefined;

  const renew = async (): Promise<void> => {
    if (elapsedMs() - failedAt < failureRestMs) throw keysAway(failure);
    fetching ??= fetchKeys(url)
      .then(
        (found) => {
          keys = found;
          fetchedAt = elapsedMs();
        },
        (cause: unknown) => {
          failure = cause;
          failedAt = elapsedMs();
          throw keysAway(cause);
        },
      )
      .finally(() => {
        fetching = undefined;
      });
    await fetching;
  };

  const find = async (...asked: Parameters<KeySet>) => {
    if (!keys) throw keysAway(failure);
    return await keys(...asked);
  };

  return async (header, token) => {
    if (!keys) await renew();
    else if (elapsedMs() - fetchedAt > freshMs) renew().catch(() => undefined); // the kept ones serve meanwhile
    try {
      return await find(header, token);
    } catch (error) {
      const mayBeNew = error instanceof errors.JWKSNoMatchingKey && elapsedMs() - fetchedAt > unknownRestMs;
      if (!mayBeNew) throw error;
    }
    await renew();
    return await find(header, token);
  };
}

type KeySet = ReturnType<typeof createLocalJWKSet>;

async function fetchKeys(url: URL): Promise<KeySet> {
  const signal = AbortSignal.timeout(timeoutMs);
  const response = await fetch(url, { signal, redirect: "manual", headers: { accept: "application/json" } });
  if (response.status !== 200 || !response.body) {
    await response.body?.cancel();
    throw new Error(`the project's keys were answered with ${response.status}`);
  }
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body) {
    bytes += part.length;
    if (bytes > answerBytesMax) throw new Error("what answers for the project's keys is too large");
    parts.push(part);
  }
  return createLocalJWKSet(JSON.parse(Buffer.concat(parts).toString()));
}

function keysAway(cause: unknown): EdgeError {
  return new EdgeError("token-keys-away", "The keys to check this access token with cannot be had now.", {
    cause,
    retryAfterS: failureRestMs / 1_000,
  });
}

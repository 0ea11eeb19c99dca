import { createHash } from "node:crypto";
import { decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from "jose";
import { isScope } from "../config/formats.ts";
import type { Holder } from "./guards.ts";
import { EdgeError } from "./problem.ts";
import { projectKeys } from "./project-keys.ts";

export interface UserTokensOptions {
  /** Root of the Supabase project whose users are known here. */
  readonly url: string;
  /** The project's legacy secret; without it, tokens that are signed by a secret are refused. */
  readonly secret?: string | undefined;
  /** Epoch milliseconds now. Default `Date.now`. */
  readonly now?: () => number;
  /** Milliseconds on a clock that nobody sets. Default `performance.now`. */
  readonly elapsedMs?: () => number;
}

export interface UserTokens {
  /** The user whose token this is: at once where it was seen lately. Throws `EdgeError` `token-…`. */
  readonly holderOf: (token: string) => Holder | Promise<Holder>;
}

/** Those of a project's users have some 1 KiB. */
const tokenCharactersMax = 8 * 1024;
/** Tokens that are remembered to be good; the one longest there makes room. */
const rememberedMax = 1_000;
/** Remembered no longer than this, so that a withdrawn key ceases to count for tokens seen before, too. */
const rememberedMs = 10 * 60_000;
/** What the clocks of a project and a station may differ by. */
const leewayS = 10;

/**
 * Checks access tokens of a Supabase project's users: those that it signs by a key of its own (ES256, RS256) against its
 * published keys, and those by the legacy secret (HS256) where that is set. The header only chooses between the two:
 * neither takes what the other is for.
 * A user may do what `app_metadata.pugmark_scopes` says, which only the project's owner can write; else nothing.
 */
export function userTokens({ url, secret, now = Date.now, elapsedMs }: UserTokensOptions): UserTokens {
  const issuer = `${url.replace(/\/+$/, "")}/auth/v1`;
  const keys = projectKeys(new URL(`${issuer}/.well-known/jwks.json`), elapsedMs);
  const secretBytes = secret === undefined ? undefined : new TextEncoder().encode(secret);
  const remembered = new Map<string, { readonly holder: Holder; readonly until: number }>();

  const claimsOf = async (token: string): Promise<JWTPayload> => {
    const checks = {
      audience: "authenticated",
      requiredClaims: ["exp", "sub"],
      clockTolerance: leewayS,
      currentDate: new Date(now()),
    };
    if (decodeProtectedHeader(token).alg !== "HS256") {
      const { payload } = await jwtVerify(token, keys, { ...checks, issuer, algorithms: ["ES256", "RS256"] });
      return payload;
    }
    if (!secretBytes) throw invalid("it is signed by a secret, and SUPABASE_JWT_SECRET is not set");
    const { payload } = await jwtVerify(token, secretBytes, { ...checks, algorithms: ["HS256"] });
    // Some servers name no issuer then: nobody else has this secret.
    if (payload.iss !== undefined && payload.iss !== issuer) throw invalid("its iss is another project's");
    return payload;
  };

  const verify = async (token: string, name: string): Promise<Holder> => {
    const claims = await claimsOf(token).catch((error: unknown) => {
      throw refusal(error);
    });
    const holder = holderOf(claims);
    if (remembered.size >= rememberedMax) remembered.delete(remembered.keys().next().value ?? "");
    remembered.set(name, { holder, until: Math.min((claims.exp ?? 0) * 1_000, now() + rememberedMs) });
    return holder;
  };

  return {
    holderOf(token) {
      if (token.length > tokenCharactersMax) throw invalid("it is too long");
      const name = createHash("sha256").update(token).digest("base64");
      const known = remembered.get(name);
      if (known && known.until > now()) return known.holder;
      remembered.delete(name);
      return verify(token, name);
    },
  };
}

/** Whether this is a signed token and no key: three parts, the first of which is JSON. */
export function isToken(text: string): boolean {
  return /^e[yw][\w-]*\.[\w-]+\.[\w-]*$/.test(text);
}

function holderOf({ sub = "", role, app_metadata: metadata }: JWTPayload): Holder {
  // The project's own keys, anon and service_role, are tokens too: they are nobody's.
  if (role !== "authenticated") throw invalid("its role is not authenticated");
  if (!/^[\w-]{1,64}$/.test(sub)) throw invalid("its sub is no user's id");
  const { pugmark_scopes: scopes } = (metadata ?? {}) as { pugmark_scopes?: unknown };
  return { name: `user:${sub}`, scopes: Array.isArray(scopes) ? scopes.filter(isScope) : [] };
}

function refusal(error: unknown): unknown {
  if (error instanceof errors.JWTExpired)
    return new EdgeError("token-expired", "This access token has expired: refresh the session.");
  if (error instanceof errors.JWTClaimValidationFailed) return invalid(`its ${error.claim} is not right`);
  const isOfTheToken = error instanceof errors.JOSEError || error instanceof TypeError;
  return isOfTheToken ? invalid("its signature or form is wrong", error) : error;
}

function invalid(why: string, cause?: unknown): EdgeError {
  return new EdgeError("token-invalid", `This access token is not taken here: ${why}.`, { cause });
}

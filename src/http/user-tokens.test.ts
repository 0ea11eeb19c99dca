import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from "jose";
import { loadConfig } from "../config/config.ts";
import { type App, createApp } from "./app.ts";
import { type UserTokens, userTokens } from "./user-tokens.ts";

const secret = "a-legacy-secret-of-forty-characters-or-so";
const user = "7f0c1b52-6f5d-4a58-9f0a-3d4f6b1f2a10";

/** The project's Auth server, as far as its keys go: what it publishes is the test's to say. */
let project: Server;
let url: string;
let published: JWK[];
let answer: RequestListener | undefined;
let asked: number;

interface Key {
  readonly alg: string;
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}
let ec: Key;
let rsa: Key;

before(async () => {
  project = createServer((request, response) => {
    asked++;
    if (answer) return answer(request, response);
    assert.equal(request.url, "/auth/v1/.well-known/jwks.json");
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys: published }));
  });
  project.listen(0, "127.0.0.1");
  await once(project, "listening");
  url = `http://127.0.0.1:${(project.address() as AddressInfo).port}`;
  [ec, rsa] = [await newKey("ES256", "ec-1"), await newKey("RS256", "rsa-1")];
});
after(async () => {
  project.closeAllConnections();
  project.close();
  await once(project, "close");
});
beforeEach(() => {
  published = [ec.jwk, rsa.jwk];
  answer = undefined;
  asked = 0;
});

async function newKey(alg: "ES256" | "RS256", kid: string): Promise<Key> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return { alg, kid, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

const claims = (changed: Readonly<Record<string, unknown>> = {}): JWTPayload => ({
  iss: `${url}/auth/v1`,
  aud: "authenticated",
  sub: user,
  role: "authenticated",
  exp: Math.floor(Date.now() / 1_000) + 3_600,
  app_metadata: { pugmark_scopes: ["read", "ingest"] },
  ...changed,
});
const sign = (payload: JWTPayload, { alg, kid, privateKey }: Key = ec) =>
  new SignJWT(payload).setProtectedHeader({ alg, kid, typ: "JWT" }).sign(privateKey);
const signBySecret = (payload: JWTPayload, by = secret) =>
  new SignJWT(payload).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(new TextEncoder().encode(by));
const base64 = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");

async function codeOf(tokens: UserTokens, token: string): Promise<string> {
  try {
    return (await tokens.holderOf(token)).name;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

test("a user is known by a token that the project signed, by either kind of key or the legacy secret", async () => {
  const tokens = userTokens({ url: `${url}/`, secret });
  for (const token of [
    await sign(claims()),
    await sign(claims(), rsa),
    await signBySecret(claims()),
    await signBySecret(claims({ iss: undefined })),
    await sign(claims({ aud: ["other", "authenticated"] })),
  ]) {
    assert.deepEqual(await tokens.holderOf(token), { name: `user:${user}`, scopes: ["read", "ingest"] });
  }
  assert.equal(asked, 1);
});

test("what a user may do is only what the project's owner wrote, and nothing by default", async () => {
  const tokens = userTokens({ url });
  const scopesOf = async (payload: JWTPayload) => (await tokens.holderOf(await sign(claims(payload)))).scopes;
  assert.deepEqual(await scopesOf({ app_metadata: undefined }), []);
  assert.deepEqual(await scopesOf({ app_metadata: null }), []);
  assert.deepEqual(await scopesOf({ app_metadata: { pugmark_scopes: "admin" } }), []);
  assert.deepEqual(await scopesOf({ app_metadata: { pugmark_scopes: ["root", 1, "write"] } }), ["write"]);
  const own = { user_metadata: { pugmark_scopes: ["admin"] }, pugmark_scopes: ["admin"], app_metadata: {} };
  assert.deepEqual(await scopesOf(own), []);
});

test("a token for somebody else, from somebody else, or that nobody signed is refused", async () => {
  const tokens = userTokens({ url, secret });
  const stranger = await newKey("ES256", "ec-1");
  const good = await sign(claims());
  const [header = "", payload = "", signature = ""] = good.split(".");
  const now = Math.floor(Date.now() / 1_000);
  const tampered = base64({ ...claims(), app_metadata: { pugmark_scopes: ["admin"] } });
  const wrong = {
    "another project": await sign(claims({ iss: "https://other.supabase.co/auth/v1" })),
    "no issuer": await sign(claims({ iss: undefined })),
    "another project's, by our secret": await signBySecret(
      claims({ iss: "https://other.supabase.co/auth/v1" }),
    ),
    "another audience": await sign(claims({ aud: "other" })),
    "no audience": await sign(claims({ aud: undefined })),
    "the anon key": await signBySecret({ ...claims({ iss: undefined }), role: "anon" }),
    "the service-role key": await signBySecret({ ...claims({ iss: undefined }), role: "service_role" }),
    "no expiry": await sign(claims({ exp: undefined })),
    "not yet": await sign(claims({ nbf: now + 60 })),
    "no user": await sign(claims({ sub: undefined })),
    "a strange user": await sign(claims({ sub: "a b" })),
    "another's key under our name": await sign(claims(), stranger),
    "another secret": await signBySecret(claims(), "another-secret-of-forty-characters-or-so"),
    tampered: [header, tampered, signature].join("."),
    "cut off": good.slice(0, -4),
    "no signature": `${header}.${payload}.`,
    unsigned: `${base64({ alg: "none", typ: "JWT" })}.${payload}.`,
    "unsigned, in capitals": `${base64({ alg: "None" })}.${payload}.${signature}`,
    "an algorithm that is not taken": `${base64({ alg: "ES512", kid: "ec-1" })}.${payload}.${signature}`,
    "no algorithm": `${base64({ typ: "JWT" })}.${payload}.${signature}`,
    "a header that is no JSON": `eyJh.${payload}.${signature}`,
    "an extension that must be understood": await new SignJWT(claims())
      .setProtectedHeader({ alg: "ES256", kid: "ec-1", b64: true, crit: ["b64"] })
      .sign(ec.privateKey)
      .then((token) => token.replace(/^[^.]+/, base64({ alg: "ES256", kid: "ec-1", crit: ["x"], x: 1 }))),
    huge: await sign(claims({ text: "x".repeat(10_000) })),
  };
  for (const [what, token] of Object.entries(wrong)) {
    assert.equal(await codeOf(tokens, token), "token-invalid", what);
  }
  assert.equal(await codeOf(tokens, good), `user:${user}`);
});

test("a published key never serves as a secret, and a secret serves only where it is set", async () => {
  const tokens = userTokens({ url });
  const pem = JSON.stringify(ec.jwk);
  assert.equal(await codeOf(tokens, await signBySecret(claims(), pem)), "token-invalid");
  assert.equal(await codeOf(tokens, await signBySecret(claims(), ec.jwk.x ?? "")), "token-invalid");
  assert.equal(await codeOf(tokens, await signBySecret(claims())), "token-invalid");
  published = [{ kty: "oct", k: Buffer.from(secret).toString("base64url"), alg: "HS256", kid: "oct" }];
  assert.equal(await codeOf(userTokens({ url }), await signBySecret(claims())), "token-invalid");
  assert.equal(asked, 0);
});

test("a token that was taken is refused once it has expired, with a little patience for clocks", async () => {
  let now = Date.now();
  const tokens = userTokens({ url, now: () => now });
  const token = await sign(claims({ exp: Math.floor(now / 1_000) + 60 }));
  assert.equal(await codeOf(tokens, token), `user:${user}`);
  assert.ok(!(tokens.holderOf(token) instanceof Promise), "the second time it is at hand");
  now += 65_000;
  assert.equal(await codeOf(tokens, token), `user:${user}`);
  now += 10_000;
  assert.equal(await codeOf(tokens, token), "token-expired");
});

test("a new key is fetched when a token first names it, and names that nobody published cost one look", async () => {
  let elapsed = 0;
  const tokens = userTokens({ url, elapsedMs: () => elapsed });
  assert.equal(await codeOf(tokens, await sign(claims())), `user:${user}`);
  const next = await newKey("ES256", "ec-2");
  published = [next.jwk];
  elapsed += 60_000;
  assert.equal(await codeOf(tokens, await sign(claims(), next)), `user:${user}`);
  assert.equal(asked, 2);
  const made = await newKey("ES256", "made-up");
  for (let index = 0; index < 20; index++) {
    assert.equal(await codeOf(tokens, await sign(claims({ index }), made)), "token-invalid");
  }
  assert.equal(asked, 2);
});

test("a withdrawn key ceases to count, also for tokens that were taken before", async () => {
  let elapsed = 0;
  let now = Date.now();
  const tokens = userTokens({ url, now: () => now, elapsedMs: () => elapsed });
  const token = await sign(claims({ exp: Math.floor(now / 1_000) + 1e9 }));
  assert.equal(await codeOf(tokens, token), `user:${user}`);
  published = [rsa.jwk];
  elapsed += 11 * 60_000;
  // The old keys serve while the new ones are on their way.
  const until = Date.now() + 10_000;
  let code: string;
  do {
    now += 11 * 60_000;
    code = await codeOf(tokens, token);
  } while (code !== "token-invalid" && Date.now() < until);
  assert.equal(code, "token-invalid");
  assert.equal(asked, 2);
});

test("while the project is away, keys at hand go on working, and others are said to be away", async () => {
  let elapsed = 0;
  const tokens = userTokens({ url, elapsedMs: () => elapsed });
  const [token, other] = [await sign(claims()), await sign(claims({ other: true }))];
  const unknown = await sign(claims(), await newKey("ES256", "ec-9"));
  assert.equal(await codeOf(tokens, token), `user:${user}`);
  answer = (request) => request.destroy();
  elapsed += 24 * 3_600_000;
  assert.equal(await codeOf(tokens, other), `user:${user}`);
  assert.equal(await codeOf(tokens, unknown), "token-keys-away");
});

for (const [what, wrong] of [
  ["closes the connection", (request) => request.destroy()],
  ["answers with a page", (_, response) => response.end("<!doctype html><p>Project paused")],
  ["answers 503", (_, response) => response.writeHead(503).end("{}")],
  ["sends elsewhere", (_, response) => response.writeHead(302, { location: url }).end()],
  ["answers something else", (_, response) => response.end('{"keys":"none"}')],
  ["answers without end", (_, response) => response.write(" ".repeat(300_000))],
] satisfies [string, RequestListener][]) {
  test(`a project that ${what} is left alone for a moment, then asked again`, async () => {
    let elapsed = 0;
    const tokens = userTokens({ url, elapsedMs: () => elapsed });
    const token = await sign(claims());
    answer = wrong;
    for (let index = 0; index < 5; index++) assert.equal(await codeOf(tokens, token), "token-keys-away");
    assert.equal(asked, 1);
    answer = undefined;
    elapsed += 6_000;
    assert.equal(await codeOf(tokens, token), `user:${user}`);
  });
}

test("requests that come together wait for one answer of a slow project", async () => {
  const tokens = userTokens({ url });
  const waiting = Promise.withResolvers<void>();
  answer = (_request, response) => {
    waiting.promise.then(() => response.end(JSON.stringify({ keys: published })));
  };
  const tokensSent = await Promise.all([1, 2, 3].map((index) => sign(claims({ index }))));
  const answers = tokensSent.map((token) => codeOf(tokens, token));
  waiting.resolve();
  assert.deepEqual(new Set(await Promise.all(answers)), new Set([`user:${user}`]));
  assert.equal(asked, 1);
});

async function demo(environment: NodeJS.ProcessEnv): Promise<App> {
  const { config } = loadConfig({ LOG_LEVEL: "fatal", SUPABASE_URL: url, ...environment }, "/nowhere/.env");
  const app = await createApp({
    name: "demo",
    title: "Demo",
    description: "A server that says who asks.",
    config,
    statusOf: {},
    readiness: {},
  });
  app.get("/who", async ({ caller, isAdmin }) => ({ caller, isAdmin }));
  app.post("/who", async ({ caller, isAdmin }) => ({ caller, isAdmin }));
  app.get("/phone", { config: { scope: "ingest", keyInQuery: true } }, async ({ caller }) => ({ caller }));
  return app;
}

const ask = async (app: App, method: "GET" | "POST", bearer?: string, path = "/who") => {
  const headers: Record<string, string> = { host: "127.0.0.1:8080" };
  if (bearer !== undefined) headers.authorization = `Bearer ${bearer}`;
  const { statusCode, json } = await app.inject({ url: path, method, headers });
  return [statusCode, json().code ?? json().caller];
};

test("beside keys, users are taken by their scopes, and everything else as before", async () => {
  const app = await demo({ PUGMARK_API_KEYS: "web:web-key-0123456789:write" });
  const reader = await sign(claims());
  const boss = await sign(claims({ app_metadata: { pugmark_scopes: ["admin"] } }));
  const nobody = await sign(claims({ app_metadata: {} }));
  assert.deepEqual(await ask(app, "GET", reader), [200, `user:${user}`]);
  assert.deepEqual(await ask(app, "POST", reader), [403, "scope-missing"]);
  assert.deepEqual(await ask(app, "POST", boss), [200, `user:${user}`]);
  assert.deepEqual(await ask(app, "GET", nobody), [403, "scope-missing"]);
  assert.deepEqual(await ask(app, "GET", `${reader}x`), [401, "token-invalid"]);
  assert.deepEqual(await ask(app, "GET", "no-key-and-no-token"), [401, "key-unknown"]);
  assert.deepEqual(await ask(app, "GET"), [401, "key-missing"]);
  assert.deepEqual(await ask(app, "POST", "web-key-0123456789"), [200, "web"]);
  assert.deepEqual(await ask(app, "GET", undefined, `/phone?key=${reader}`), [401, "key-unknown"]);
  await app.close();
});

test("without keys, who shows a token is that user, and who shows none may do everything", async () => {
  const app = await demo({});
  assert.deepEqual(await ask(app, "POST"), [200, "local"]);
  assert.deepEqual(await ask(app, "POST", "sk-some-key-of-a-program"), [200, "local"]);
  assert.deepEqual(await ask(app, "GET", await sign(claims())), [200, `user:${user}`]);
  assert.deepEqual(await ask(app, "POST", await sign(claims())), [403, "scope-missing"]);
  const expired = await sign(claims({ exp: 1_000_000 }));
  assert.deepEqual(await ask(app, "GET", expired), [401, "token-expired"]);
  await app.close();
});

test("without a Supabase project nobody looks at tokens", async () => {
  const app = await demo({ SUPABASE_URL: "" });
  assert.deepEqual(await ask(app, "POST", await sign(claims())), [200, "local"]);
  assert.equal(asked, 0);
  await app.close();
});

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { type EdgeRuntime, startEdgeRuntime } from "../../test/support/edge-runtime.ts";
import { closedPort } from "../../test/support/ports.ts";
import { createApp } from "../http/app.ts";
import { testConfig } from "./api.fixture.ts";
import { statusOf } from "./api-error.ts";
import { type FunctionParts, functionRoutes } from "./routes/functions.ts";

const key = "sb_publishable_0123456789";
/** Functions that one finds in no folder of ours: a server in their place. */
let project: Server;
let url: string;
let edge: EdgeRuntime;
let seen: IncomingMessage | undefined;

/** What functions answer, by their names: media type and body. */
const answers: Readonly<Record<string, readonly [string, string]>> = {
  place: ["application/geo+json", '{"type":"Point","coordinates":[6.5,53]}'],
  numbers: ["application/json", '{"id":12345678901234567890,"m":1.10}'],
  word: ["application/json", '"done"'],
  empty: ["application/json", ""],
  picture: ["application/octet-stream", "\u0001\u0002"],
  report: ["application/pdf", "%PDF-1.7"],
  news: ["text/event-stream", "data: 1\n\n"],
  form: [
    "multipart/form-data; boundary=x",
    '--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
  ],
};

before(async () => {
  project = createServer(async (request, response) => {
    seen = request;
    const body = await text(request);
    const name = request.url?.replace("/functions/v1/", "");
    if (name === "echo") response.writeHead(200, { "content-type": "application/json" }).end(body);
    else if (name === "words") response.writeHead(200, { "content-type": "text/plain" }).end("done");
    else if (name === "nothing") response.writeHead(204).end();
    else if (answers[name ?? ""])
      response.writeHead(200, { "content-type": answers[name ?? ""]?.[0] }).end(answers[name ?? ""]?.[1]);
    else if (name === "strict") response.writeHead(400).end("no such herd");
    else if (name === "broken") response.writeHead(500).end("boom");
    else if (name === "endless") response.writeHead(200).end("x".repeat(1024 * 1024 + 1));
    else if (name === "cut")
      response.writeHead(200, { "content-length": 100 }).write("x", () => response.destroy());
    // Whoever asks for any other name waits in vain.
  });
  project.listen(0, "127.0.0.1");
  await once(project, "listening");
  url = `http://127.0.0.1:${(project.address() as AddressInfo).port}`;
  edge = await startEdgeRuntime({ SUPABASE_URL: url });
});
after(async () => {
  project.closeAllConnections();
  project.close();
  await edge[Symbol.asyncDispose]();
});

async function call(name: string, body: object, parts: FunctionParts = { url, key }) {
  await using app = await apiWith(parts);
  const { statusCode, body: answer, headers } = await app.inject(name, body);
  return { status: statusCode, answer, type: headers["content-type"], code: codeOf(answer) };
}

function codeOf(answer: string): string | undefined {
  return answer.includes("urn:problem") ? JSON.parse(answer).code : undefined;
}

async function apiWith(parts: FunctionParts, environment: NodeJS.ProcessEnv = {}) {
  const config = testConfig(environment);
  const app = await createApp({ name: "api", title: "t", description: "d", config, statusOf, readiness: {} });
  functionRoutes(app, parts);
  return {
    inject: (name: string, payload: object, headers = {}) =>
      app.inject({
        method: "POST",
        url: `/api/v1/functions/${name}`,
        headers: { host: "127.0.0.1", ...headers },
        payload,
      }),
    [Symbol.asyncDispose]: () => app.close(),
  };
}

test("a function is sent what was posted, with the publishable key, and its answer is handed on", async () => {
  const { status, answer, type } = await call("echo", { herd: [1, "ä"] });
  assert.deepEqual([status, answer], [200, '{"herd":[1,"ä"]}']);
  assert.match(String(type), /^application\/json/);
  assert.equal(seen?.headers.apikey, key);
  assert.equal(seen?.headers.authorization, undefined);
  const words = await call("words", {});
  assert.deepEqual([words.status, words.answer], [200, "done"]);
  assert.equal((await call("nothing", {})).status, 200);
});

test("what a function answers is handed on as it is, whatever its media type", async () => {
  for (const [name, [mediaType, body]] of Object.entries(answers)) {
    const { status, answer, type } = await call(name, {});
    assert.deepEqual([status, type?.toString().split("; charset")[0], answer], [200, mediaType, body], name);
  }
});

test("what goes wrong says who is to blame", async () => {
  const strict = await call("strict", {});
  assert.deepEqual([strict.status, strict.code], [422, "function-refused"]);
  assert.match(strict.answer, /answers 400: no such herd/);
  assert.deepEqual((await call("broken", {})).code, "function-failed");
  for (const name of ["endless", "cut"]) assert.equal((await call(name, {})).code, "project-away", name);
  assert.equal((await call("silent", {}, { url, key, timeoutMs: 50 })).code, "project-away");
  const away = await call("echo", {}, { url: `http://127.0.0.1:${closedPort}`, key });
  assert.deepEqual([away.status, away.code], [503, "project-away"]);
});

test("a function that Deno serves is called, and one that there is not is unknown", async () => {
  const parts = { url: edge.url, key };
  const { status, answer } = await call("ingest", {}, parts);
  assert.deepEqual([status, codeOf(answer)], [502, "function-failed"]);
  assert.match(answer, /inbox-away/);
  assert.deepEqual(await call("nobody", {}, parts).then(({ code }) => code), "function-unknown");
});

test("without a project, and without the scope write, nothing is called", async () => {
  seen = undefined;
  assert.equal((await call("echo", {}, { url: undefined, key: undefined })).code, "supabase-unset");
  await using app = await apiWith({ url, key }, { PUGMARK_API_KEYS: "a:0123456789abcdef0123:read" });
  const refused = await app.inject("echo", {}, { "x-api-key": "0123456789abcdef0123" });
  assert.equal(codeOf(refused.body), "scope-missing");
  assert.equal((await call("..%2fecho", {})).code, "request-invalid");
  assert.equal(seen, undefined);
});

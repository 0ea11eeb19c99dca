import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { PassThrough } from "node:stream";
import { type TestContext, test } from "node:test";
import { closedPort } from "../../test/support/ports.ts";
import { ask } from "./ask.ts";

const answered = {
  answer: "Luna travelled 14.2 km.",
  grounded: true,
  unsupported: [] as string[],
  evidence: [{ tool: "track_summary", arguments: { subject: "Luna" }, result: { distance_km: 14.19 } }],
  run_id: "0197b0a2-0000-7000-8000-000000000001",
  interaction_ids: [],
  model: "m",
};

/** An agent server that gives this answer to whatever it is asked. */
async function agent(
  context: TestContext,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
) {
  const asked: { body: string; authorization: string | undefined }[] = [];
  const server = createServer(async (request, response) => {
    asked.push({
      body: (await request.toArray()).join(""),
      authorization: request.headers.authorization,
    });
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  context.after(() => server.close());
  const { port } = server.address() as { port: number };
  return { baseUrl: `http://127.0.0.1:${port}`, asked };
}

const escapeCode = "\u001b";

async function run(baseUrl: string, options: { json?: boolean; key?: string; tty?: boolean } = {}) {
  const streams = { out: new PassThrough(), err: new PassThrough() };
  if (options.tty) Object.assign(streams.out, { isTTY: true });
  const { json = false, key } = options;
  const code = await ask("How far did Luna go?", { baseUrl, json, key }, streams);
  const text = (stream: PassThrough) => String(stream.read() ?? "");
  return { code, out: text(streams.out), err: text(streams.err) };
}

test("an answer is printed with what it rests on", async (context) => {
  const { baseUrl, asked } = await agent(context, 200, answered);
  const { code, out, err } = await run(baseUrl, { key: "secret-key" });
  assert.equal(code, 0);
  assert.equal(err, "");
  assert.equal(
    out,
    'Luna travelled 14.2 km.\n\nLooked up:\n  track_summary(subject: Luna) {"distance_km":14.19}\n',
  );
  assert.deepEqual(asked, [
    { body: '{"question":"How far did Luna go?"}', authorization: "Bearer secret-key" },
  ]);
});

test("an answer that nothing bears out is marked, with the claims", async (context) => {
  const { baseUrl } = await agent(context, 200, {
    ...answered,
    grounded: false,
    unsupported: ["99 km", "Bella"],
  });
  const { code, out } = await run(baseUrl);
  assert.equal(code, 0);
  assert.match(out, /Not grounded: nothing that was looked up bears out “99 km”, “Bella”\./);
});

test("an answer without any look-up says so", async (context) => {
  const { baseUrl } = await agent(context, 200, { ...answered, grounded: false, evidence: [] });
  assert.match((await run(baseUrl)).out, /Not grounded: nothing was looked up\./);
});

test("colours are for terminals", async (context) => {
  const { baseUrl } = await agent(context, 200, { ...answered, grounded: false, unsupported: ["99 km"] });
  assert.ok((await run(baseUrl, { tty: true })).out.includes(escapeCode));
  assert.ok(!(await run(baseUrl)).out.includes(escapeCode));
});

test("the JSON form is the whole answer", async (context) => {
  const { baseUrl } = await agent(context, 200, answered);
  assert.deepEqual(JSON.parse((await run(baseUrl, { json: true })).out), answered);
});

test("a name with terminal codes in it reaches the terminal without them", async (context) => {
  const hostile = `${escapeCode}[2J${escapeCode}]0;owned\u0007Luna\r\u0008`;
  const { baseUrl } = await agent(context, 200, {
    ...answered,
    answer: hostile,
    evidence: [{ tool: "track_summary", arguments: { subject: hostile }, result: {} }],
  });
  const { out } = await run(baseUrl);
  assert.doesNotMatch(out.replaceAll("\n", ""), /\p{Cc}/u);
  assert.match(out, /Luna/);
});

test("a station that is not running is said to be so, with what starts it", async () => {
  const { code, out, err } = await run(`http://127.0.0.1:${closedPort}`);
  assert.equal(code, 1);
  assert.equal(out, "");
  assert.match(err, /^pugmark: the station is not running: .*`npm start`\.\n$/);
});

test("a problem is one line that says when to try again", async (context) => {
  const problem = { code: "lm-studio-away", detail: "LM Studio does not answer:\nstart it.", status: 503 };
  const { baseUrl } = await agent(context, 503, problem, { "retry-after": "5" });
  const { code, err } = await run(baseUrl);
  assert.equal(code, 1);
  assert.equal(err, "pugmark: LM Studio does not answer: start it. Try again in 5 s.\n");
});

test("something else on the agent's port is told apart", async (context) => {
  const { baseUrl } = await agent(context, 200, { hello: "world" });
  const { code, err } = await run(baseUrl);
  assert.equal(code, 1);
  assert.match(err, /is not Pugmark's agent; see PORT/);
});

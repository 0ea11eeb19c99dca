import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { test } from "node:test";
import { eventually } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, type LmStudioOptions, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { faults, type GenerationRequest, type Reply } from "../../../test/lm-studio/reply.ts";
import type { AnswerEvent } from "../answers/answer-reader.ts";
import type { Priority } from "../queue.ts";
import { type Question, Upstreams, type UpstreamsOptions } from "./upstreams.ts";

const model = "deepseek-r1-distill-qwen-7b";
const nowhere = "http://127.0.0.1:1";

function open(roots: readonly string[], options: Partial<UpstreamsOptions> = {}): Upstreams {
  return new Upstreams({ roots, silenceMs: 10_000, firstTokenMs: 60_000, loadMs: 60_000, ...options });
}

interface Said {
  readonly text: string;
  /** Where it was sent, each time. */
  readonly upstreams: readonly string[];
}

/** Asks for one thing; gives what the model said. Parts of a failed answer are in `heard`. */
async function ask(
  upstreams: Upstreams,
  prompt: string,
  more: Partial<Question> & { heard?: string[]; firstToken?: () => void } = {},
): Promise<Said> {
  const { heard = [], firstToken, ...question } = more;
  const sent: string[] = [];
  const asked = question.model ?? model;
  await upstreams.ask(
    {
      endpoint: "chat",
      body: JSON.stringify({ model: asked, stream: true, messages: [{ role: "user", content: prompt }] }),
      model: asked,
      priority: "people",
      caller: "local",
      requestId: "0123456789",
      signal: new AbortController().signal,
      ...question,
    },
    {
      admitted: ({ upstream }) => sent.push(upstream),
      events: (events) => {
        if (heard.length === 0) firstToken?.();
        heard.push(...events.map(textOf));
      },
    },
  );
  return { text: heard.join(""), upstreams: sent };
}

function textOf({ value, delta }: AnswerEvent): string {
  const { choices } = value as { choices: { delta: { content?: string } }[] };
  return ((delta ?? choices[0]?.delta) as { content?: string } | undefined)?.content ?? "";
}

const promptOf = ({ messages }: GenerationRequest) => String(messages?.[0]?.content);
const prompts = (lm: LmStudio) => lm.generations.map(({ body }) => promptOf(body));

/** A stand-in that answers each prompt when it is told to. */
async function startPatient(options: LmStudioOptions = {}) {
  const replies = new Map<string, (reply: Reply) => void>();
  const lm = await startLmStudio({
    respond: (request) =>
      new Promise((resolve) => {
        replies.set(promptOf(request), resolve);
      }),
    ...options,
  });
  return {
    lm,
    /** Waits until the prompt is there, and answers it. */
    answer: async (prompt: string, reply: Reply = { text: prompt }) => {
      await eventually(
        async () => [...replies.keys()],
        (there) => there.includes(prompt),
      );
      replies.get(prompt)?.(reply);
    },
  };
}

const waiting = (upstreams: Upstreams) => upstreams.status().queue.length;
test("people come first, then agents, then batches, and callers take turns", async () => {
  const { lm, answer } = await startPatient();
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1 });
  const first = ask(upstreams, "first");
  await lm.generation(1);
  const order: string[] = [];
  const others = (
    [
      ["batch", "batch", "a"],
      ["agent", "agent", "a"],
      ["a1", "people", "a"],
      ["a2", "people", "a"],
      ["b1", "people", "b"],
    ] satisfies [string, Priority, string][]
  ).map(async ([prompt, priority, caller]) => {
    await ask(upstreams, prompt, { priority, caller });
    order.push(prompt);
  });
  assert.equal(waiting(upstreams), 5);
  const shown = upstreams
    .status()
    .queue.waiting.map(({ position, priority, caller }) => [position, priority, caller]);
  assert.deepEqual(shown, [
    [1, "people", "a"],
    [2, "people", "b"],
    [3, "people", "a"],
    [4, "agent", "a"],
    [5, "batch", "a"],
  ]);
  const expected = ["a1", "b1", "a2", "agent", "batch"];
  for (const prompt of ["first", ...expected]) await answer(prompt);
  await Promise.all([first, ...others]);
  assert.deepEqual(order, expected);
  assert.deepEqual(prompts(lm), ["first", ...expected]);
});

test("past its bound the queue refuses, and says for how long", async () => {
  const { lm, answer } = await startPatient();
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1, waitingMax: 1 });
  const first = ask(upstreams, "first");
  const second = ask(upstreams, "second");
  await assert.rejects(ask(upstreams, "third"), { code: "queue-full", retryAfterS: 1 });
  await answer("first");
  await answer("second");
  assert.deepEqual([(await first).text, (await second).text], ["first", "second"]);
});

test("one who fills the queue locks out nobody else, and nobody who asks an idle model", async () => {
  const { lm, answer } = await startPatient();
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1, waitingMax: 2 });
  const first = ask(upstreams, "first");
  const second = ask(upstreams, "second");
  const third = ask(upstreams, "third");
  const other = ask(upstreams, "of another caller", { caller: "b" });
  await assert.rejects(third, { code: "queue-full" });
  const elsewhere = ask(upstreams, "elsewhere", { model: "idle" });
  for (const prompt of ["first", "elsewhere", "second", "of another caller"]) await answer(prompt);
  await Promise.all([first, second, other, elsewhere]);
});

test("who leaves the queue is never sent, and who comes next moves up", async () => {
  const { lm, answer } = await startPatient();
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1 });
  const first = ask(upstreams, "first");
  await lm.generation(1);
  const leaver = new AbortController();
  const left = ask(upstreams, "leaves", { signal: leaver.signal });
  const batch = ask(upstreams, "stays", { priority: "batch" });
  assert.equal(waiting(upstreams), 2);
  const reason = new Error("had enough");
  leaver.abort(reason);
  await assert.rejects(left, reason);
  assert.equal(waiting(upstreams), 1);
  await answer("first");
  await answer("stays");
  await Promise.all([first, batch]);
  assert.deepEqual(prompts(lm), ["first", "stays"]);
});

test("who leaves while it is answered ends the model's work, and the next one goes on at once", async () => {
  const { lm, answer } = await startPatient();
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1 });
  const leaver = new AbortController();
  const left = ask(upstreams, "leaves", { signal: leaver.signal });
  const generation = await lm.generation(1);
  const next = ask(upstreams, "next");
  leaver.abort(new Error("had enough"));
  await assert.rejects(left, /had enough/);
  assert.equal(await generation.ended, "aborted");
  await answer("next");
  assert.equal((await next).text, "next");
  await assert.rejects(ask(upstreams, "never", { signal: leaver.signal }), /had enough/);
  assert.deepEqual(prompts(lm), ["leaves", "next"]);
});

test("a model that is not loaded gets one question alone, until its first token", async () => {
  const { lm, answer } = await startPatient({ models: [{ id: model, state: "not-loaded" }] });
  await using _lm = lm;
  await using upstreams = open([lm.url]);
  const firstToken = Promise.withResolvers<void>();
  const isLeft = assert.rejects(ask(upstreams, "first", { firstToken: firstToken.resolve }));
  const others = ["second", "third"].map((prompt) => ask(upstreams, prompt));
  await lm.generation(1);
  await eventually(
    async () => upstreams.status().upstreams[0]?.models[0]?.state,
    (state) => state === "not-loaded",
  );
  assert.deepEqual([prompts(lm), waiting(upstreams)], [["first"], 2]);
  await answer("first", { text: "a slow answer", tokenDelayMs: 60_000 });
  await firstToken.promise;
  await answer("second");
  await answer("third");
  assert.deepEqual(
    (await Promise.all(others)).map(({ text }) => text),
    ["second", "third"],
  );
  await upstreams[Symbol.asyncDispose]();
  await isLeft;
});

test("when the first question to a model that is not loaded fails, the next one tries", async () => {
  const { lm, answer } = await startPatient({ models: [{ id: model, state: "not-loaded" }] });
  await using _lm = lm;
  await using upstreams = open([lm.url]);
  const first = ask(upstreams, "first");
  const second = ask(upstreams, "second");
  await answer("first", faults["load-failed"]);
  await assert.rejects(first, { code: "model-load-failed" });
  await answer("second");
  assert.equal((await second).text, "second");
});

test("as many go at once as LM Studio says the model takes", async () => {
  const { lm, answer } = await startPatient({ models: [{ id: model, parallel: 2 }] });
  await using _lm = lm;
  await using upstreams = open([lm.url]);
  await upstreams.models();
  const all = ["1", "2", "3"].map((prompt) => ask(upstreams, prompt));
  await lm.generation(2);
  const [listed] = upstreams.status().upstreams[0]?.models ?? [];
  assert.deepEqual([listed?.slots, listed?.active, waiting(upstreams)], [2, 2, 1]);
  for (const prompt of ["1", "2", "3"]) await answer(prompt);
  await Promise.all(all);
  assert.equal(upstreams.status().upstreams[0]?.active, 0);
});

test("a model that is to be loaded waits until nothing runs, and the loaded one's questions are through", async () => {
  const models = [{ id: model }, { id: "other", state: "not-loaded" }] as const;
  const { lm, answer } = await startPatient({ models });
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1 });
  await upstreams.models();
  const running = ask(upstreams, "running");
  const switching = ask(upstreams, "switching", { model: "other" });
  const later = ask(upstreams, "later");
  await answer("running");
  await answer("later");
  await answer("switching");
  await Promise.all([running, switching, later]);
  assert.deepEqual(prompts(lm), ["running", "later", "switching"]);
});

test("who waits long enough for another model goes before those who came later for the loaded one", async () => {
  let now = 0;
  const models = [{ id: model }, { id: "other", state: "not-loaded" }] as const;
  const { lm, answer } = await startPatient({ models });
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1, clock: () => now });
  await upstreams.models();
  const running = ask(upstreams, "running");
  const switching = ask(upstreams, "switching", { model: "other" });
  now += 1;
  const later = ask(upstreams, "later");
  now += 30_000;
  await answer("running");
  await answer("switching");
  await answer("later");
  await Promise.all([running, switching, later]);
  assert.deepEqual(prompts(lm), ["running", "switching", "later"]);
});

test("of two LM Studios the one with less to do is asked", async () => {
  const [one, two] = [await startPatient(), await startPatient()];
  await using _one = one.lm;
  await using _two = two.lm;
  await using upstreams = open([one.lm.url, two.lm.url]);
  await upstreams.models();
  const all = ["1", "2", "3", "4"].map((prompt) => ask(upstreams, prompt));
  await Promise.all([one.lm.generation(2), two.lm.generation(2)]);
  for (const { lm, answer } of [one, two]) for (const prompt of prompts(lm)) await answer(prompt);
  assert.deepEqual(
    (await Promise.all(all)).map(({ text }) => text),
    ["1", "2", "3", "4"],
  );
});

test("a model is asked where it is", async () => {
  await using one = await startLmStudio({ models: [{ id: "a" }] });
  await using two = await startLmStudio({ models: [{ id: "b", loadedContextLength: 8_192 }] });
  await using upstreams = open([one.url, two.url]);
  const ids = (await upstreams.models()).map(({ id }) => id);
  assert.deepEqual(ids.sort(), ["a", "b"]);
  assert.deepEqual([upstreams.contextOf("a"), upstreams.contextOf("b")], [4_096, 8_192]);
  for (let i = 0; i < 4; i += 1) await ask(upstreams, `${i}`, { model: "b" });
  assert.deepEqual([one.generations.length, two.generations.length], [0, 4]);
  assert.equal(upstreams.contextOf("c"), undefined);
});

test("when one LM Studio dies, what it had not begun to answer is answered by the other", async () => {
  const one = await startPatient();
  await using _one = one.lm;
  await using two = await startLmStudio({ respond: () => ({ text: "from two" }) });
  await using upstreams = open([one.lm.url, two.url]);
  await upstreams.models();
  await two.goAway();
  const heard: string[] = [];
  const begun = ask(upstreams, "begun", { heard });
  const silent = ask(upstreams, "silent");
  await one.lm.generation(2);
  await one.answer("begun", { text: "some words", tokenDelayMs: 60_000 });
  await eventually(
    async () => heard.length,
    (length) => length > 0,
  );
  await two.comeBack();
  const isCut = assert.rejects(begun, { code: "upstream-cut" });
  await one.lm.goAway();
  await isCut;
  const { text, upstreams: sent } = await silent;
  assert.equal(text, "from two");
  assert.equal(sent.at(-1), two.url);
  const health = () => upstreams.status().upstreams.map(({ healthy }) => healthy);
  await ask(upstreams, "and from now on");
  assert.deepEqual(health(), [false, true]);
  await one.lm.comeBack();
  // Nobody asks it: it is looked at in the background.
  await eventually(
    async () => health(),
    ([first]) => first === true,
  );
});

test("where the LM Studio that has a model goes away, no other one answers with one of its own", async () => {
  await using one = await startLmStudio({ models: [{ id: "small" }] });
  await using two = await startLmStudio({ models: [{ id: "big" }] });
  await using upstreams = open([one.url, two.url]);
  await upstreams.models();
  await ask(upstreams, "there", { model: "big" });
  await two.goAway();
  for (let i = 0; i < 3; i += 1) {
    await assert.rejects(ask(upstreams, `away ${i}`, { model: "big" }), { code: "lm-studio-away" });
  }
  assert.deepEqual(prompts(one), []);
  assert.equal((await ask(upstreams, "small", { model: "small" })).upstreams[0], one.url);
});

test("many who find an LM Studio gone do not put off the next look at it", async () => {
  const models = [{ id: model, parallel: 8 }];
  await using one = await startLmStudio({ models });
  await using other = await startLmStudio({ models });
  await using upstreams = open([one.url, other.url]);
  await upstreams.models();
  await one.goAway();
  await Promise.all(Array.from({ length: 16 }, (_, i) => ask(upstreams, `question ${i}`)));
  assert.equal(upstreams.status().upstreams[0]?.healthy, false);
  await one.comeBack();
  await eventually(
    async () => upstreams.status().upstreams[0]?.healthy,
    (isHealthy) => isHealthy === true,
  );
});

test("an LM Studio is looked at until it is back, whatever is answered in its place meanwhile", async () => {
  let looks = 0;
  await using server = await serve(({ url, socket }, response) => {
    if (url !== "/v1/models") return void response.end("{}");
    looks += 1;
    if (looks === 1) return void socket.destroy();
    response.statusCode = looks === 2 ? 502 : 200;
    response.end(looks === 2 ? "not yet" : JSON.stringify({ data: [{ id: model }] }));
  });
  await using other = await startLmStudio();
  await using upstreams = open([server.url, other.url]);
  await upstreams.models();
  await eventually(
    async () => [looks, upstreams.status().upstreams[0]?.healthy],
    ([, isHealthy]) => isHealthy === true,
  );
  assert.equal(looks, 3);
});

test("with one LM Studio frozen the models of the other are listed without waiting for it", async () => {
  await using frozen = await startLmStudio({ models: [{ id: "a" }] });
  await using well = await startLmStudio({ models: [{ id: "b" }] });
  frozen.freeze(true);
  // Waiting for the frozen one would take longer than the test may.
  await using upstreams = open([frozen.url, well.url], { silenceMs: 3_600_000 });
  assert.deepEqual(
    (await upstreams.models()).map(({ id }) => id),
    ["b"],
  );
});

test("with all of them away everyone is told at once, and the very next question finds one that is back", async () => {
  await using lm = await startLmStudio();
  await using upstreams = open([nowhere, lm.url]);
  await lm.goAway();
  const answers = await Promise.allSettled(
    ["1", "2", "3", "4", "5", "6"].map((prompt) => ask(upstreams, prompt)),
  );
  for (const answer of answers) {
    assert.equal(answer.status === "rejected" && answer.reason.code, "lm-studio-away");
  }
  await assert.rejects(upstreams.models(), { code: "lm-studio-away" });
  assert.deepEqual(
    upstreams.status().upstreams.flatMap(({ models }) => models.map(({ breaker }) => breaker)),
    ["closed", "closed"],
  );
  await lm.comeBack();
  const { upstreams: sent } = await ask(upstreams, "back?");
  assert.equal(sent.at(-1), lm.url);
});

test("a crash, a busy answer and a broken connection are tried again", async () => {
  await using lm = await startLmStudio();
  await using upstreams = open([lm.url]);
  for (const fault of [faults.crash, faults.busy, faults.cut]) {
    lm.script(fault, { text: "Second try." });
    assert.equal((await ask(upstreams, "Hi")).text, "Second try.");
  }
  assert.equal(lm.generations.length, 6);
  assert.equal(upstreams.status().upstreams[0]?.models[0]?.breaker, "closed");
});

test("what breaks every connection is sent twice, and three times where the first may have been closed before", async () => {
  await using lm = await startLmStudio({ respond: () => faults.reset });
  await using upstreams = open([lm.url]);
  await assert.rejects(ask(upstreams, "deadly"), { code: "upstream-cut" });
  assert.equal(lm.generations.length, 2);
  lm.script({ text: "fine" });
  await ask(upstreams, "leaves its connection idle");
  await assert.rejects(ask(upstreams, "deadly"), { code: "upstream-cut" });
  assert.equal(lm.generations.length, 6);
});

test("a model that fails every time is left alone, and tried by one question after a while", async () => {
  let now = 0;
  const { lm, answer } = await startPatient();
  await using _lm = lm;
  await using upstreams = open([lm.url], { clock: () => now });
  await upstreams.models();
  for (let i = 0; i < 20; i += 1) {
    const failing = ask(upstreams, `fails ${i}`);
    await answer(`fails ${i}`, faults["internal-error"]);
    await assert.rejects(failing, { code: "upstream-failed" });
  }
  await assert.rejects(
    ask(upstreams, "not sent"),
    (error: { code: string; message: string; retryAfterS: number }) => {
      assert.deepEqual([error.code, error.retryAfterS], ["upstream-open", 1]);
      assert.match(error.message, /failed 20 times in a row.*Internal Server Error/);
      return true;
    },
  );
  // Only this model is left alone.
  const other = ask(upstreams, "other", { model: "qwen" });
  await answer("other");
  await other;
  now += 1_000;
  const probe = ask(upstreams, "probe");
  const waits = ask(upstreams, "waits");
  await answer("probe", faults["internal-error"]);
  await assert.rejects(probe, { code: "upstream-failed" });
  await assert.rejects(waits, { code: "upstream-open", retryAfterS: 2 });
  now += 2_000;
  const good = ask(upstreams, "good");
  const after = ask(upstreams, "after");
  await answer("good");
  await answer("after");
  await Promise.all([good, after]);
  assert.ok(!prompts(lm).includes("not sent") && !prompts(lm).includes("waits"));
});

test("who waits for another's question goes on where that one is refused", async () => {
  const models = [{ id: model }, { id: "other", state: "not-loaded" }] as const;
  const { lm, answer } = await startPatient({ models });
  await using _lm = lm;
  await using upstreams = open([lm.url], { concurrency: 1 });
  await upstreams.models();
  const fails = async (prompt: string) => {
    const failing = ask(upstreams, prompt);
    const refused = assert.rejects(failing, { code: "upstream-failed" });
    await answer(prompt, faults["internal-error"]);
    await refused;
  };
  for (let i = 1; i < 20; i += 1) await fails(`fails ${i}`);
  const last = assert.rejects(ask(upstreams, "fails 20"), { code: "upstream-failed" });
  // Not before those for the loaded model are through.
  const switching = ask(upstreams, "switching", { model: "other" });
  const loaded = assert.rejects(ask(upstreams, "loaded"), { code: "upstream-open" });
  await answer("fails 20", faults["internal-error"]);
  await Promise.all([last, loaded]);
  await answer("switching");
  assert.equal((await switching).text, "switching");
});

test("while one LM Studio's model fails, the other is used", async () => {
  await using broken = await startLmStudio({ respond: () => faults["internal-error"] });
  await using well = await startLmStudio({ respond: () => ({ text: "Well." }) });
  await using upstreams = open([broken.url, well.url]);
  await upstreams.models();
  const said = [];
  for (let i = 0; i < 14; i += 1)
    said.push(await ask(upstreams, `${i}`).catch(({ code }) => ({ text: code })));
  assert.equal(broken.generations.length, 5);
  assert.deepEqual(
    said.slice(-4).map(({ text }) => text),
    ["Well.", "Well.", "Well.", "Well."],
  );
});

test("what its reader throws ends an answer at once", async () => {
  await using lm = await startLmStudio({ respond: () => ({ text: "a long answer", tokenDelayMs: 60_000 }) });
  await using upstreams = open([lm.url]);
  const firstToken = () => {
    throw new Error("enough of this");
  };
  await assert.rejects(ask(upstreams, "Hi", { firstToken }), /enough of this/);
  assert.equal(await lm.generations[0]?.ended, "aborted");
});

test("requests carry their id, and go out in the order of their coming where nobody has to wait", async () => {
  await using lm = await startLmStudio();
  await using upstreams = open([lm.url]);
  await ask(upstreams, "Hi", { requestId: "aaaaaaaa-1" });
  assert.equal(lm.generations[0]?.headers["x-request-id"], "aaaaaaaa-1");
});

/** Anything that speaks HTTP, for answers that the stand-in does not give. */
async function serve(listener: RequestListener) {
  const server = createServer((request, response) =>
    request.resume().on("end", () => listener(request, response)),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

async function eventsFrom(upstreams: Upstreams, endpoint: Question["endpoint"]): Promise<AnswerEvent[]> {
  const all: AnswerEvent[] = [];
  const { signal } = new AbortController();
  const question = {
    endpoint,
    body: "{}",
    model,
    priority: "people",
    caller: "local",
    requestId: "12345678",
  } as const;
  await upstreams.ask(
    { ...question, signal },
    { admitted: () => {}, events: (events) => all.push(...events) },
  );
  return all;
}

test("embeddings come in one piece, and so may what a proxy gathered up", async () => {
  const vectors = { object: "list", data: [{ object: "embedding", index: 0, embedding: [0.5] }] };
  const gathered = { id: "x", model, choices: [{ index: 0, message: { content: "Hi" } }] };
  await using server = await serve(({ url }, response) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(url === "/lm/v1/embeddings" ? vectors : gathered));
  });
  await using upstreams = open([`${server.url}/lm`]);
  assert.deepEqual(await eventsFrom(upstreams, "embeddings"), [{ event: "whole", value: vectors }]);
  assert.deepEqual(await eventsFrom(upstreams, "chat"), [{ event: "whole", value: gathered }]);
  await assert.rejects(eventsFrom(upstreams, "responses"), { code: "upstream-invalid" });
});

test("the words of an error that is no JSON are kept, and those of a page are not", async () => {
  const said = new Map([
    ["/event", ["text/event-stream", "event: error\ndata: Channel Error\n\n"]],
    ["/text", ["text/plain", "upstream connect error\n"]],
    ["/page", ["text/html", "<h1>Bad gateway</h1>"]],
  ]);
  await using server = await serve(({ url = "", method }, response) => {
    if (method === "GET") return void response.end("{}");
    const [type = "", body] = said.get(url.replace("/v1/chat/completions", "")) ?? [];
    response.writeHead(type === "text/event-stream" ? 200 : 502, { "content-type": type }).end(body);
  });
  for (const [path, code, message] of [
    ["/event", "model-crashed", /LM Studio says: Channel Error$/],
    ["/text", "upstream-failed", /LM Studio says: upstream connect error$/],
    ["/page", "upstream-failed", /^LM Studio answered 502\.$/],
  ] as const) {
    await using upstreams = open([server.url + path]);
    await assert.rejects(eventsFrom(upstreams, "chat"), { code, message });
  }
});

test("a response ends with its last event, even where the stream stays open, and never without it", async () => {
  const created = { type: "response.created", response: { id: "resp_1", error: null } };
  const delta = { type: "response.output_text.delta", delta: "Hi" };
  const ended = { type: "response.completed", response: { id: "resp_1" } };
  const line = (value: { type: string }) => `event: ${value.type}\ndata: ${JSON.stringify(value)}\n\n`;
  let isWhole = true;
  await using server = await serve(({ method }, response) => {
    if (method === "GET") return void response.end("{}");
    response.setHeader("content-type", "text/event-stream");
    response.write(line(created) + line(delta));
    if (isWhole) response.write(line(ended));
    else response.end("data: [DONE]\n\n");
  });
  await using upstreams = open([server.url]);
  assert.deepEqual(
    (await eventsFrom(upstreams, "responses")).map(({ value }) => value),
    [created, delta, ended],
  );
  isWhole = false;
  await assert.rejects(eventsFrom(upstreams, "responses"), { code: "upstream-cut" });
});

test("what LM Studio tells of its models beside their names is asked for again after a failure that may pass", async () => {
  const unknown = { status: 200, body: { error: "Unexpected endpoint or method. (GET /api/v1/models)" } };
  let state = { status: 500, body: { error: "Internal Server Error" } as object };
  const asked: (string | undefined)[] = [];
  await using proxy = await serve(({ url }, response) => {
    asked.push(url);
    const list = { status: 200, body: { data: [{ id: model }] } };
    const { status, body } = url === "/v1/models" ? list : url === "/api/v0/models" ? state : unknown;
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  await using upstreams = open([proxy.url]);
  assert.equal((await upstreams.models())[0]?.state, undefined);
  state = { status: 200, body: { data: [{ id: model, state: "loaded" }] } };
  assert.equal((await upstreams.models())[0]?.state, "loaded");
  assert.equal(asked.filter((url) => url === "/api/v1/models").length, 1);
});

test("a list of models is asked for once more where LM Studio had closed the idle connection", async () => {
  const used = new WeakSet<object>();
  await using server = await serve(({ socket }, response) => {
    // As an idle connection that is closed just when it is used again.
    if (used.has(socket)) return void socket.destroy();
    used.add(socket);
    response.end(JSON.stringify({ data: [{ id: "a" }] }));
  });
  await using upstreams = open([server.url]);
  for (let i = 0; i < 3; i += 1)
    assert.deepEqual(
      (await upstreams.models()).map(({ id }) => id),
      ["a"],
    );
  assert.equal(upstreams.status().upstreams[0]?.healthy, true);
});

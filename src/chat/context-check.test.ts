import assert from "node:assert/strict";
import { test } from "node:test";
import { ChatError } from "./chat-error.ts";
import { type Asked, checkContext, TokenRatios } from "./context-check.ts";
import { estimateTokens } from "./token-estimate.ts";

const words = (count: number) => "river ".repeat(count);
const asked = (prompt: Partial<Asked>): Asked => ({ model: "m", contextTokens: 1_000, ...prompt });
const user = (content: string) => ({ role: "user", content });

function refusal(prompt: Partial<Asked>): string | undefined {
  try {
    checkContext(asked(prompt));
    return undefined;
  } catch (error) {
    assert.ok(error instanceof ChatError && error.code === "context-length-exceeded");
    return error.message;
  }
}

test("a prompt that surely is too long is refused with its largest parts and what to do", () => {
  const detail = refusal({
    messages: [{ role: "system", content: words(100) }, user(words(1_500)), user("Where?")],
    tools: [{ function: { name: words(300) } }],
    maxTokens: 500,
  });
  assert.match(
    detail ?? "",
    /^The prompt has about 1,9\d\d tokens, and m is loaded with a context of 1,000\. /,
  );
  assert.match(detail ?? "", /Largest: message 2 \(user\) 1,50\d, tools 3\d\d, system 10\d\. /);
  assert.match(detail ?? "", /`lms load m --context-length 4096`\.$/);
});

test("what may fit is left to LM Studio, and so is everything where no context is known", () => {
  assert.equal(refusal({ messages: [user(words(990))] }), undefined);
  assert.equal(refusal({ messages: [user(words(1_100))] }), undefined);
  assert.match(refusal({ messages: [user(words(1_200))] }) ?? "", /about 1,2/);
  assert.match(refusal({ prompt: words(1_200) }) ?? "", /Largest: prompt 1,200\. Shorten it/);
  assert.equal(refusal({ prompt: words(9_000), contextTokens: undefined }), undefined);
});

test("a picture is not taken for the text that it is written as", () => {
  const image = { type: "image_url", image_url: { url: `data:image/png;base64,${"A".repeat(100_000)}` } };
  assert.equal(refusal({ messages: [{ role: "user", content: [image] }] }), undefined);
});

test("what LM Studio counts of past prompts corrects the estimate, within bounds", () => {
  const ratios = new TokenRatios();
  const prompt = { prompt: words(2_000) };
  const estimate = estimateTokens(prompt.prompt);
  assert.equal(ratios.of("dense"), 1);
  for (let time = 0; time < 30; time += 1) ratios.learn("dense", prompt, estimate * 1.5);
  assert.ok(Math.abs(ratios.of("dense") - 1.5) < 0.01);
  for (let time = 0; time < 30; time += 1) ratios.learn("odd", prompt, estimate * 50);
  assert.ok(ratios.of("odd") > 1.9 && ratios.of("odd") <= 2);
  for (let time = 0; time < 30; time += 1) ratios.learn("sparse", prompt, 1);
  assert.ok(ratios.of("sparse") < 0.6 && ratios.of("sparse") >= 0.5);
  assert.equal(refusal({ prompt: words(900), ratio: ratios.of("dense") })?.includes("about 1,3"), true);
});

test("a prompt of a few words teaches nothing", () => {
  const ratios = new TokenRatios();
  ratios.learn("m", { prompt: "Hi" }, 40);
  assert.equal(ratios.of("m"), 1);
});

test("of models, only the latest are remembered", () => {
  const ratios = new TokenRatios();
  const prompt = { prompt: words(500) };
  for (let model = 0; model < 300; model += 1) ratios.learn(String(model), prompt, 1_000);
  assert.equal(ratios.of("0"), 1);
  assert.notEqual(ratios.of("299"), 1);
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { projectRoot } from "../config/config.ts";
import { estimateTokens, partsOf, sumOf, tokensPerMessage } from "./token-estimate.ts";

/**
 * Counted by gpt-tokenizer 4.0.0 with cl100k_base, and one more for each further digit of a number, since
 * Qwen2 cuts digits apart. The Chinese one by Qwen's own "1.5 to 1.8 characters a token"
 * (https://qwen.readthedocs.io, Key Concepts).
 */
const counted = {
  English: [
    66,
    "A pugmark is the footprint that a tracked animal leaves. Rangers read it to tell the species, the sex and the age of the animal, and how long ago it passed. In the dry season the old female stays close to the river, where she was seen with two cubs on three nights of the last week.",
  ],
  French: [
    73,
    "L'empreinte que laisse un animal suivi permet aux gardes de reconnaître l'espèce, le sexe et l'âge de l'animal, et depuis combien de temps il est passé. Pendant la saison sèche, la vieille femelle reste près de la rivière, où elle a été vue avec deux petits.",
  ],
  Russian: [
    108,
    "След, который оставляет животное, позволяет егерям определить вид, пол и возраст зверя и понять, как давно он здесь прошёл. В сухой сезон старая самка держится у реки, где её видели с двумя детёнышами три ночи подряд на прошлой неделе.",
  ],
  Chinese: [
    47,
    "动物留下的足迹可以让护林员判断它的种类、性别和年龄，以及它是多久以前经过这里的。在旱季，那只年老的雌豹总是待在河边，上周有三个晚上人们看见它带着两只幼崽。",
  ],
  "a CSV of positions": [12_146, dataFile("movebank-oystercatcher-O_ASSEN-2019.csv")],
  "a GPX file": [13_933, dataFile("gpxpy-cerknicko-jezero.gpx")],
} satisfies Record<string, readonly [number, string]>;

function dataFile(name: string): string {
  return readFileSync(join(projectRoot, "test/data", name), "utf8").slice(0, 20_000);
}

for (const [what, [tokens, text]] of Object.entries(counted)) {
  test(`the tokens of ${what} are estimated within 15 %`, () => {
    const off = estimateTokens(text) / tokens;
    assert.ok(off > 0.85 && off < 1.15, `${off.toFixed(2)} of what was counted`);
  });
}

test("nothing is no token, and whatever is in a text, it is never less than nothing", () => {
  assert.equal(estimateTokens(""), 0);
  for (const text of ["\0", "\ud800", "🐆🐾", " ", "\n\n\n", "\u2028", "x".repeat(100_000)]) {
    const tokens = estimateTokens(text);
    assert.ok(tokens >= 0 && tokens <= text.length * 2, JSON.stringify(text.slice(0, 4)));
  }
});

test("a prompt is told apart into its parts, with the template around each message", () => {
  const parts = partsOf({
    messages: [
      { role: "system", content: "Be brief." },
      {
        role: "user",
        content: [
          { type: "text", text: "What is this?" },
          { type: "image_url", image_url: {} },
        ],
      },
      { role: "assistant", content: null, tool_calls: [{ function: { name: "look" } }] },
    ],
    tools: [{ type: "function", function: { name: "look" } }],
  });
  assert.deepEqual(
    parts.map(({ name }) => name),
    ["system", "message 2 (user)", "message 3 (assistant)", "tools"],
  );
  assert.equal(parts[0]?.tokens, tokensPerMessage + estimateTokens("Be brief."));
  assert.ok((parts[1]?.tokens ?? 0) > 500, "a picture has its own price");
  assert.equal(
    sumOf(parts),
    parts.reduce((sum, part) => sum + part.tokens, 0),
  );
  assert.deepEqual(partsOf({ prompt: "Leopards live" }), [
    { name: "prompt", tokens: estimateTokens("Leopards live") },
  ]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { spokenHistory } from "./spoken-history.ts";

const question = { role: "user", content: "And now?" };
const thought = "<think>\nTwo and two.\n</think>\n\nFour.";

test("what the model thought in earlier turns is not sent again, in whichever form it comes back", () => {
  const sent = spokenHistory([
    { role: "assistant", content: thought },
    { role: "assistant", content: "Four.", reasoning_content: "Two and two.", name: "a" },
    { role: "assistant", content: "Four.", reasoning: "Two and two." },
    { role: "assistant", content: [{ type: "text", text: thought }] },
    question,
  ]);
  assert.deepEqual(sent, [
    { role: "assistant", content: "Four." },
    { role: "assistant", content: "Four.", name: "a" },
    { role: "assistant", content: "Four." },
    { role: "assistant", content: [{ type: "text", text: "Four." }] },
    question,
  ]);
});

test("the turn under way keeps its thinking, which calls of tools go on from", () => {
  const turn = [
    question,
    { role: "assistant", content: "", reasoning_content: "I must look.", tool_calls: [{ id: "1" }] },
    { role: "tool", content: "the hills", tool_call_id: "1" },
  ];
  assert.deepEqual(spokenHistory(turn), turn);
});

test("all else stays as it is: other speakers, text about tags, calls without text, odd shapes", () => {
  const messages = [
    { role: "system", content: thought },
    { role: "user", content: thought },
    { role: "assistant", content: "The tag <think> opens, </think> closes." },
    { role: "assistant", content: null, tool_calls: [{ id: "1" }] },
    { role: "assistant", content: [null, { type: "refusal", refusal: "No." }] },
    { role: "assistant" },
    question,
  ];
  assert.deepEqual(spokenHistory(messages), messages);
});

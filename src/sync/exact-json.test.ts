import assert from "node:assert/strict";
import { test } from "node:test";
import { parseExactly } from "./exact-json.ts";

test("numbers that JavaScript cannot hold come out as they went in, wherever they are", () => {
  const numbers = ["12345678901234567890", "1.10", "1e400", "-0", "-0.0", "1E5", "0.12345678901234567890"];
  for (const number of numbers) {
    for (const text of [`[${number}]`, `{"a":${number},"b":1}`, `[{"a":[0, ${number}]}]`]) {
      assert.equal(JSON.stringify(parseExactly(text)), text.replaceAll(" ", ""), text);
    }
  }
});

test("all else is parsed as ever", () => {
  const value = { text: "1.10, 1e400 [-0]", list: [1, -1.5, 0.1, 100, true, null], empty: {} };
  assert.deepEqual(parseExactly(JSON.stringify(value)), value);
  assert.throws(() => parseExactly("<html>1.10</html>"), SyntaxError);
});

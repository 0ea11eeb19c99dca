import assert from "node:assert/strict";
import { test } from "node:test";
import { validate, version } from "uuid";
import { uuidv7 } from "./uuid.ts";

test("ids are UUIDs of version 7 and carry the time", () => {
  const before = Date.now();
  const id = uuidv7();
  assert.ok(validate(id), id);
  assert.equal(version(id), 7);
  const at = Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  assert.ok(at >= before && at <= Date.now() + 1, id);
});

test("each id is greater than the one before, also when thousands fall into one millisecond", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() + 60_000 });
  const ids = Array.from({ length: 20_000 }, () => uuidv7());
  for (const [index, id] of ids.entries()) {
    assert.ok(validate(id), id);
    if (index > 0) assert.ok(id > (ids[index - 1] as string), `${ids[index - 1]} before ${id}`);
  }
  // Nor does a clock that is set back bring an older one.
  t.mock.timers.setTime(Date.now() - 30_000);
  assert.ok(uuidv7() > (ids.at(-1) as string));
});

test("the last 62 bits of ids differ", () => {
  const tails = new Set(Array.from({ length: 20_000 }, () => uuidv7().slice(19)));
  assert.equal(tails.size, 20_000);
});

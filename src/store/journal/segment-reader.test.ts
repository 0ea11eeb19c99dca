import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { frameOf } from "./frame.ts";
import { SegmentReader } from "./segment-reader.ts";

test("what was read beside a frame, while the next was being written, is not taken for that", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-segment-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "segment");
  const [first, second] = [frameOf("one\n"), frameOf("two\n")];
  // The file has its new length, and not all of its new bytes.
  writeFileSync(path, Buffer.concat([first, Buffer.alloc(second.length)]));
  await using reader = await SegmentReader.open(path);
  assert.deepEqual(await reader.next(first.length), { text: "one\n" });
  assert.equal(await reader.next(first.length), undefined);
  writeFileSync(path, Buffer.concat([first, second]));
  assert.deepEqual(await reader.next(first.length + second.length), { text: "two\n" });
});

test("a frame longer than what is read at once is read whole, and damage longer than that is skipped", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-segment-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "segment");
  const long = `${"ü".repeat(400_000)}\n`;
  // With marks in it, none of which begins a frame.
  const rubbish = Buffer.alloc(700_000, `\u001e${"0".repeat(999)}`);
  const bytes = Buffer.concat([frameOf(long), rubbish, frameOf("after\n")]);
  writeFileSync(path, bytes);
  await using reader = await SegmentReader.open(path);
  assert.deepEqual(await reader.next(bytes.length), { text: long });
  assert.deepEqual(await reader.next(bytes.length), { damagedBytes: rubbish.length, isTail: false });
  assert.deepEqual(await reader.next(bytes.length), { text: "after\n" });
  assert.equal(await reader.next(bytes.length), undefined);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { fitLine, fitLinePadded, widthOf, wrap } from "./fit-line.ts";

test("a width is that of the screen: wide letters take two columns, accents and colours none", () => {
  assert.equal(widthOf("abc"), 3);
  assert.equal(widthOf("\x1b[31mabc\x1b[39m"), 3);
  assert.equal(widthOf("e\u0301te\u0301"), 3);
  assert.equal(widthOf("日本 🦫"), 7);
});

test("a line is cut to its columns with an ellipsis, and its colours end with it", () => {
  assert.equal(fitLine("abcdef", 6), "abcdef");
  assert.equal(fitLine("abcdef", 5), "abcd…");
  assert.equal(fitLine("日本語", 5), "日本…");
  assert.equal(fitLine("日本語", 4), "日…");
  assert.equal(fitLine("a\x1b[31mbcdef", 4), "a\x1b[31mbc…\x1b[0m");
  assert.equal(fitLine("", 0), "");
  assert.equal(fitLinePadded("\x1b[31mab\x1b[39m", 4), "\x1b[31mab\x1b[39m\x1b[0m  ");
});

test("nothing in a line can move the cursor or break it", () => {
  assert.equal(fitLine("a\x1b[2Jb\x1b]0;title\x07c\r\nd\te", 80), "abc d    e");
});

test("words are wrapped, and cut only where one is longer than a line", () => {
  assert.deepEqual(wrap("one two three", 7), ["one two", "three"]);
  assert.deepEqual(wrap("onetwothree", 4), ["onet", "woth", "ree"]);
  assert.deepEqual(wrap("a onetwothree b", 6), ["a", "onetwo", "three", "b"]);
});

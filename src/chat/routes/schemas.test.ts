import assert from "node:assert/strict";
import { test } from "node:test";
import { cachingOf } from "./schemas.ts";

for (const [header, caching] of [
  [undefined, { read: true, write: true }],
  ["", { read: true, write: true }],
  ["no-cache", { read: false, write: true }],
  ["no-store", { read: false, write: false }],
  ["no-store, max-age=60", { read: false, write: false, maxAgeS: 60 }],
  ["max-age=0", { read: false, write: true, maxAgeS: 0 }],
  ["max-age=60", { read: true, write: true, maxAgeS: 60 }],
  [' Max-Age="60" ', { read: true, write: true, maxAgeS: 60 }],
  ["max-age=60,max-age=5", { read: true, write: true, maxAgeS: 5 }],
  ["max-age=soon", { read: false, write: true, maxAgeS: 0 }],
  ["max-age", { read: false, write: true, maxAgeS: 0 }],
  ["max-age=-1", { read: false, write: true, maxAgeS: 0 }],
  ["only-if-cached, max-age=5", { read: true, write: true, maxAgeS: 5, onlyIfCached: true }],
  ["max-stale=5, min-fresh=1, no-transform, x-max-age=0", { read: true, write: true }],
] as const) {
  test(`Cache-Control ${JSON.stringify(header)} is understood`, () => {
    assert.deepEqual(cachingOf(header), caching);
  });
}

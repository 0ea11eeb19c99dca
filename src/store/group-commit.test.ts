import assert from "node:assert/strict";
import { test } from "node:test";
import { GroupCommit } from "./group-commit.ts";

/** A writer that finishes when it is told to, and keeps what it was given. */
function writer() {
  const groups: number[][] = [];
  const releases: (() => void)[] = [];
  const write = async (items: readonly number[]) => {
    groups.push([...items]);
    await new Promise<void>((resolve) => releases.push(resolve));
    return items.map((item) => item * 10);
  };
  return { groups, write, release: () => releases.shift()?.() };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("what arrives while a write is under way shares the next one, each with its own result", async () => {
  const { groups, write, release } = writer();
  const commit = new GroupCommit({ write, groupMax: 100, waitingMax: 100, writers: 1 });
  const first = commit.submit(1);
  await turn();
  const later = [commit.submit(2), commit.submit(3), commit.submit(4)];
  await turn();
  assert.deepEqual(groups, [[1]]);
  release();
  assert.equal(await first, 10);
  await turn();
  release();
  assert.deepEqual(await Promise.all(later), [20, 30, 40]);
  assert.deepEqual(groups, [[1], [2, 3, 4]]);
});

test("a group is bounded by weight, and an item is never split", async () => {
  const { groups, write, release } = writer();
  const commit = new GroupCommit({ write, weigh: (item) => item, groupMax: 5, waitingMax: 100, writers: 1 });
  const all = [9, 2, 3, 4].map((item) => commit.submit(item));
  for (let group = 0; group < 3; group += 1) {
    await turn();
    release();
    await turn();
  }
  await Promise.all(all);
  assert.deepEqual(groups, [[9], [2, 3], [4]]);
});

test("past its bound it says that it is busy, and takes more once there is room", async () => {
  const { write, release } = writer();
  const commit = new GroupCommit({ write, groupMax: 1, waitingMax: 2, writers: 1 });
  const kept = [commit.submit(1), commit.submit(2)];
  await assert.rejects(commit.submit(3), { code: "store-busy" });
  for (let count = 0; count < 2; count += 1) {
    await turn();
    release();
    await turn();
  }
  await Promise.all(kept);
  const again = commit.submit(4);
  await turn();
  release();
  assert.equal(await again, 40);
});

test("an item that the database refuses does not take its company down with it", async () => {
  const commit = new GroupCommit<number, number>({
    write: async (items) => {
      if (items.includes(13)) throw new Error("refused");
      return [...items];
    },
    groupMax: 10,
    waitingMax: 10,
    writers: 1,
  });
  const results = await Promise.allSettled([1, 13, 2].map((item) => commit.submit(item)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
});

test("when the database is away, everyone in the group is told once, and nothing is tried one by one", async () => {
  let writes = 0;
  const commit = new GroupCommit<number, number>({
    write: async () => {
      writes += 1;
      throw Object.assign(new Error("gone"), { code: "ECONNREFUSED" });
    },
    groupMax: 10,
    waitingMax: 10,
    writers: 1,
  });
  const results = await Promise.allSettled([1, 2, 3].map((item) => commit.submit(item)));
  assert.ok(results.every(({ status }) => status === "rejected"));
  assert.equal(writes, 1);
});

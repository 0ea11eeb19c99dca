import assert from "node:assert/strict";
import { test } from "node:test";
import { type Priority, Queue, type Waiter } from "./queue.ts";

interface Named extends Waiter {
  readonly name: string;
}

const waiter = (name: string, priority: Priority = "people", caller = "a", model = "m"): Named => ({
  name,
  priority,
  caller,
  model,
  size: 10,
  since: 0,
});

function queueOf(...waiters: readonly Named[]): Queue<Named> {
  const queue = new Queue<Named>();
  for (const each of waiters) queue.push(each, 1);
  return queue;
}

/** Admits up to so many of those that may start, and gives their names. */
function admitted(
  queue: Queue<Named>,
  slots: number,
  may: (waiter: Named) => boolean = () => true,
): string[] {
  const names: string[] = [];
  queue.admit((each) => {
    if (names.length >= slots || !may(each)) return false;
    names.push(each.name);
    return true;
  });
  return names;
}

test("people come before agents, and agents before batches", () => {
  const queue = queueOf(waiter("b", "batch"), waiter("a", "agent"), waiter("p"), waiter("p2"));
  assert.deepEqual(admitted(queue, 9), ["p", "p2", "a", "b"]);
  assert.equal(queue.length, 0);
});

test("a batch does not start while anybody else waits, even for another model", () => {
  const queue = queueOf(waiter("b", "batch", "a", "free"), waiter("a", "agent", "a", "taken"));
  const isFree = ({ model }: Named) => model === "free";
  assert.deepEqual(admitted(queue, 9, isFree), []);
  assert.ok(queue.remove([...queue.waitingFor("taken")][0] as Named));
  assert.deepEqual(admitted(queue, 9, isFree), ["b"]);
});

test("callers of one priority take turns, also from one admission to the next", () => {
  const many = ["a1", "a2", "a3", "a4"].map((name) => waiter(name));
  const queue = queueOf(
    ...many,
    waiter("b1", "people", "b"),
    waiter("c1", "people", "c"),
    waiter("b2", "people", "b"),
  );
  const order = ["a1", "b1", "c1", "a2", "b2", "a3", "a4"];
  assert.deepEqual(
    [...queue.waitingFor("m")].map(({ name }) => name),
    order,
  );
  const came: string[] = [];
  while (queue.length > 0) came.push(...admitted(queue, 1));
  assert.deepEqual(came, order);
});

test("whoever cannot start holds up nobody who can", () => {
  const queue = queueOf(
    waiter("x1", "people", "a", "x"),
    waiter("y1", "people", "a", "y"),
    waiter("x2", "people", "b", "x"),
  );
  assert.deepEqual(
    admitted(queue, 9, ({ name }) => name !== "x1"),
    ["x2", "y1"],
  );
  assert.deepEqual(admitted(queue, 9), ["x1"]);
});

test("one that leaves is forgotten, and the others move up", () => {
  const [first, second] = [waiter("1"), waiter("2")];
  const queue = queueOf(first, second);
  assert.ok(queue.remove(first));
  assert.ok(!queue.remove(first));
  assert.deepEqual(
    queue.list().map(({ waiter: { name }, position }) => [name, position]),
    [["2", 1]],
  );
});

test("one that had its turn and failed is the next of its priority", () => {
  const queue = queueOf(waiter("a1"), waiter("b1", "people", "b"), waiter("b2", "people", "b"));
  queue.pushBack(waiter("b0", "people", "b"));
  assert.deepEqual(admitted(queue, 9), ["b0", "a1", "b1", "b2"]);
});

test("a full queue says when there will be room, as measured", () => {
  const queue = new Queue<Named>({ waitingMax: 10 });
  for (let i = 0; i < 10; i += 1) queue.push(waiter(`${i}`), 2);
  assert.throws(() => queue.push(waiter("one too many"), 2), { code: "queue-full", retryAfterS: 1 });
  queue.measured("m", 4_000);
  assert.throws(() => queue.push(waiter("one too many"), 2), { code: "queue-full", retryAfterS: 20 });
  assert.ok(queue.remove([...queue.waitingFor("m")][3] as Named));
  queue.push(waiter("just right"), 2);
  assert.equal(queue.length, 10);
});

test("in a full queue, the caller with the most waiting gives way to one with fewer", () => {
  const queue = new Queue<Named>({ waitingMax: 4 });
  for (const name of ["a1", "a2", "a3", "a4"]) queue.push(waiter(name), 1);
  assert.equal(queue.push(waiter("b1", "people", "b", "other"), 1)?.name, "a4");
  assert.equal(queue.push(waiter("b2", "people", "b"), 1)?.name, "a3");
  assert.throws(() => queue.push(waiter("b3", "people", "b"), 1), { code: "queue-full" });
  assert.throws(() => queue.push(waiter("a5"), 1), { code: "queue-full" });
  assert.equal(queue.length, 4);
});

test("in a full queue, those who would go later give way to those who go before them", () => {
  const queue = new Queue<Named>({ waitingMax: 2 });
  queue.push(waiter("batch", "batch", "b"), 1);
  queue.push(waiter("agent", "agent", "station"), 1);
  assert.equal(queue.push(waiter("one"), 1)?.name, "batch");
  assert.throws(() => queue.push(waiter("late", "batch", "c"), 1), { code: "queue-full" });
  assert.equal(queue.push(waiter("two"), 1)?.name, "agent");
  assert.throws(() => queue.push(waiter("three"), 1), { code: "queue-full" });
  assert.deepEqual(admitted(queue, 9), ["one", "two"]);
});

test("huge questions fill the queue by their size", () => {
  const queue = new Queue<Named>();
  const huge = { ...waiter("huge"), size: 100 * 1024 * 1024 };
  queue.push(huge, 1);
  assert.throws(() => queue.push({ ...huge }, 1), { code: "queue-full" });
  queue.remove(huge);
  queue.push({ ...huge }, 1);
});

test("the wait is estimated from how long answers took, the newest counting most", () => {
  const queue = new Queue<Named>();
  assert.equal(queue.waitMs("m", 1, 1), undefined);
  queue.measured("m", 1_000);
  assert.equal(queue.waitMs("m", 6, 2), 3_000);
  queue.measured("m", 2_000);
  assert.equal(queue.waitMs("m", 1, 1), 1_200);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import type { MirroredTable } from "../store/sync-rows.ts";
import { chooseTables } from "./mirror-choice.ts";

const table = (name: string, rank: number, ...parents: string[]): MirroredTable => ({
  name,
  rank,
  isEdited: false,
  key: ["id"],
  columns: ["id"],
  parents,
});
const tables = [
  table("devices", 10),
  table("subjects", 10),
  table("deployments", 20, "devices", "subjects"),
  table("photos", 20, "subjects"),
  table("positions", 30),
  table("interactions", 30),
];

const chosen = (names: string[], precisionM = 0) =>
  chooseTables(tables, { names, precisionM }).map(({ name }) => name);

test("all is every table, none is no table", () => {
  assert.deepEqual(
    chosen(["all"]),
    tables.map(({ name }) => name),
  );
  assert.deepEqual(chosen(["none"]), []);
});

test("a named table goes with those that it refers to, parents first", () => {
  assert.deepEqual(chosen(["deployments"]), ["devices", "subjects", "deployments"]);
});

test("positions go with the devices that sent them and the subjects that these were on", () => {
  assert.deepEqual(chosen(["positions"]), ["devices", "subjects", "deployments", "positions"]);
});

test("a name that is no table's is refused, with those that there are", () => {
  assert.throws(() => chosen(["position"]), {
    code: "mirror-unknown",
    message: /position, which is no mirrored table; there are devices, subjects, .*interactions/,
  });
});

test("where positions are coarse, what would tell more goes only if it is named", () => {
  for (const name of ["interactions", "photos"]) {
    assert.ok(!chosen(["all"], 1_000).includes(name));
    assert.ok(chosen(["all", name], 1_000).includes(name));
  }
});

test("only positions are made coarse, and only where that is asked for", () => {
  const row = JSON.stringify({ lat: 51.50001, lon: 4.49999, accuracy_m: 5, attributes: { seed: 1 } });
  const preparedBy = (name: string, precisionM: number) => {
    const found = chooseTables(tables, { names: ["all"], precisionM }).find((each) => each.name === name);
    return found?.prepare(row);
  };
  assert.equal(preparedBy("positions", 0), row);
  assert.equal(preparedBy("devices", 1_000), row);
  const { accuracy_m, attributes } = JSON.parse(preparedBy("positions", 1_000) ?? "");
  assert.deepEqual([accuracy_m, attributes], [1_000, null]);
});

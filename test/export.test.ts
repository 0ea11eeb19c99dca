import assert from "node:assert/strict";
import { test } from "node:test";
import { processesOf, testStation } from "./support/station.ts";
import { noSystemd, startSystemd, until } from "./support/systemd.ts";

for (const scope of ["user", "system"] as const)
  test(
    `a station under its exported ${scope} unit is back by itself after kill -9 of the manager`,
    {
      skip: noSystemd,
    },
    () => killAndComeBack(scope),
  );

/** The system's unit is run by a user's systemd too: that of root can do all that it asks for. */
async function killAndComeBack(scope: "user" | "system"): Promise<void> {
  await using station = await testStation();
  await using systemd = await startSystemd();
  const { exitCode } = await station.pugmark(
    ...["export", "systemd", "--output", systemd.units, ...(scope === "user" ? ["--user"] : [])],
  );
  assert.equal(exitCode, 0);
  await systemd.systemctl("daemon-reload");
  await systemd.systemctl("start", "pugmark.service");
  const mainPid = async () => Number(await systemd.systemctl("show", "-P", "MainPID", "pugmark.service"));
  const isReady = async () => assert.equal((await fetch(`${station.api}/readyz`)).status, 200);
  await until("the station is ready", isReady);

  const before = processesOf(station.home);
  const killed = await mainPid();
  process.kill(killed, "SIGKILL");
  await until("another manager runs", async () => {
    const pid = await mainPid();
    assert.ok(pid > 0 && pid !== killed);
  });
  await until("the station is ready again", isReady);
  const left = processesOf(station.home).filter((pid) => before.includes(pid));
  assert.deepEqual(left, []);

  // A stop by command is a wish: nothing is left, and nothing comes back.
  assert.equal((await station.pugmark("down")).exitCode, 0);
  await until("the unit is at rest", async () =>
    assert.equal(
      (await systemd.systemctl("show", "-P", "ActiveState", "pugmark.service")).trim(),
      "inactive",
    ),
  );
  assert.deepEqual(processesOf(station.home), []);
}

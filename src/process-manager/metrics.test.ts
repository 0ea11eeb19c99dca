import assert from "node:assert/strict";
import { test } from "node:test";
import { ControlClient } from "./control-client.ts";
import { defineExternal, defineService } from "./definition.ts";
import { eventually, Fixture, forever } from "./fixture.ts";
import { states } from "./lifecycle.ts";

test("every service and the manager are measured in Prometheus' text format", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "api", command: ["/bin/sh", "-c", "echo hello; exec sleep 1000"] }),
    defineService({ name: "idle", command: forever }),
    defineExternal({
      kind: "external",
      name: "redis",
      probe: { kind: "check", check: async () => undefined },
    }),
  ]);
  await manager.startAndWait("api");
  await manager.startAndWait("redis");
  const client = new ControlClient(fixture.home);
  const text = await eventually("its output is counted", async () => {
    const now = await client.metrics();
    assert.match(now, /^pugmark_service_log_bytes_total\{service="api"\} 6$/m);
    return now;
  });

  const samples = new Map<string, number>();
  for (const line of text.split("\n").filter((one) => one !== "" && !one.startsWith("#"))) {
    const [, series, value] =
      /^(pugmark_[a-z_]+(?:\{[a-z]+="[a-z-]+"(?:,[a-z]+="[a-z]+")?\})?) (\S+)$/.exec(line) ?? [];
    assert.ok(series && value && Number.isFinite(Number(value)), line);
    assert.equal(samples.has(series), false, `${series} comes twice`);
    samples.set(series, Number(value));
    const [name] = series.split("{");
    assert.match(text, new RegExp(`^# TYPE ${name} ${name?.endsWith("_total") ? "counter" : "gauge"}$`, "m"));
    assert.match(text, new RegExp(`^# HELP ${name} \\S`, "m"));
  }
  const value = (series: string) => samples.get(`pugmark_${series}`);
  assert.deepEqual(
    states.map((state) => value(`service_state{service="idle",state="${state}"}`)),
    states.map((state) => (state === "stopped" ? 1 : 0)),
  );
  assert.equal(value('service_state{service="redis",state="ready"}'), 1);
  assert.equal(value('service_restarts_total{service="api"}'), 0);
  assert.equal(value('service_processes{service="api"}'), 1);
  assert.ok((value('service_resident_memory_bytes{service="api"}') ?? 0) > 100_000);
  assert.ok((value('service_start_duration_seconds{service="api"}') ?? -1) >= 0);
  assert.ok(Math.abs((value('service_start_time_seconds{service="api"}') ?? 0) - Date.now() / 1000) < 60);
  assert.ok((value("manager_resident_memory_bytes") ?? 0) > 1_000_000);
  assert.ok((value("manager_cpu_seconds_total") ?? 0) > 0);
  assert.ok((value("manager_event_loop_lag_seconds") ?? -1) >= 0);
  assert.equal(value('service_resident_memory_bytes{service="idle"}'), undefined);
  assert.equal(value('service_restarts_total{service="redis"}'), undefined);

  await manager.restart("api");
  assert.match(await client.metrics(), /^pugmark_service_state\{service="api",state="ready"\} 1$/m);
});

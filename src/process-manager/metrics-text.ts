import { setImmediate as nextTurn } from "node:timers/promises";
import { states } from "./lifecycle.ts";
import type { MeasuredService } from "./process-usage.ts";

/** What is counted of a service beside what `MeasuredService` says. */
interface ServiceCounts {
  /** Bytes of output since the manager started; null for what others run. */
  readonly logBytes: number | null;
  /** How long the last start took until it was ready; null until then. */
  readonly startMs: number | null;
}

type Counted = MeasuredService & ServiceCounts;
type Labels = Readonly<Record<string, string>>;
/** A number and whose it is; what is not known has no line. */
type Sample = readonly [labels: Labels, value: number | null];

/** Everything about the services and this process in Prometheus' text format, version 0.0.4. */
export async function metricsText(services: readonly Counted[]): Promise<string> {
  const askedAt = performance.now();
  await nextTurn();
  const lagSeconds = (performance.now() - askedAt) / 1000;
  const { user, system } = process.cpuUsage();
  const ofEach = (value: (service: Counted) => number | null): Sample[] =>
    services.map((service) => [{ service: service.name }, value(service)]);
  const inState = services.flatMap((service) =>
    states.map((state): Sample => [{ service: service.name, state }, service.state === state ? 1 : 0]),
  );
  const ofManager = (value: number): Sample[] => [[{}, value]];
  return [
    family("service_state", "gauge", "1 for the state that the service is in", inState),
    family(
      "service_restarts_total",
      "counter",
      "Processes started again since the service was last started by command",
      ofEach(({ kind, restarts }) => (kind === "external" ? null : restarts)),
    ),
    family(
      "service_start_time_seconds",
      "gauge",
      "When its process started, seconds since the epoch",
      ofEach(({ pid, startedAt }) =>
        pid === null || startedAt === null ? null : Date.parse(startedAt) / 1000,
      ),
    ),
    family(
      "service_start_duration_seconds",
      "gauge",
      "How long its last start took until it was ready",
      ofEach(({ startMs }) => (startMs === null ? null : startMs / 1000)),
    ),
    family(
      "service_cpu_seconds_total",
      "counter",
      "Processor time of its process and what that started",
      ofEach(({ cpuSeconds }) => cpuSeconds),
    ),
    family(
      "service_resident_memory_bytes",
      "gauge",
      "Resident memory of all its processes; what they share counts for each",
      ofEach(({ memoryBytes }) => memoryBytes),
    ),
    family(
      "service_processes",
      "gauge",
      "Processes that it consists of",
      ofEach(({ processes }) => processes),
    ),
    family(
      "service_log_bytes_total",
      "counter",
      "Output since the manager started",
      ofEach(({ logBytes }) => logBytes),
    ),
    family(
      "manager_start_time_seconds",
      "gauge",
      "When the manager started, seconds since the epoch",
      ofManager(performance.timeOrigin / 1000),
    ),
    family(
      "manager_cpu_seconds_total",
      "counter",
      "Processor time of the manager",
      ofManager((user + system) / 1e6),
    ),
    family(
      "manager_resident_memory_bytes",
      "gauge",
      "Resident memory of the manager",
      ofManager(process.memoryUsage.rss()),
    ),
    family(
      "manager_event_loop_lag_seconds",
      "gauge",
      "How long the manager took to come to this request's turn",
      ofManager(lagSeconds),
    ),
  ].join("");
}

function family(name: string, type: "counter" | "gauge", help: string, samples: readonly Sample[]): string {
  const lines = samples.flatMap(([labels, value]) =>
    value === null ? [] : [`pugmark_${name}${labelText(labels)} ${value}`],
  );
  return [`# HELP pugmark_${name} ${help}`, `# TYPE pugmark_${name} ${type}`, ...lines, ""].join("\n");
}

/** Names of services and states need no escaping: letters, digits and dashes. */
function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

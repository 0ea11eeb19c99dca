import type { MeasuredService } from "../process-manager/process-usage.ts";
import { hasStarted, type ServiceRecord } from "../process-manager/service-status.ts";
import { fitLine, fitLinePadded, widthOf } from "./fit-line.ts";
import { styledState } from "./state-style.ts";

/** Services in lines that are at most as wide as was asked for. */
export interface ServiceTable {
  readonly heading: string;
  /** One for each service, in their order. */
  readonly rows: readonly string[];
  /** Whether there was room for the column that says why. */
  readonly showsWhy: boolean;
}

const titles = ["SERVICE", "STATE", "SINCE", "RESTARTS", "PID", "CPU", "MEMORY", "PORTS"];
const gap = "  ";
/** With less room than this the reason is better said elsewhere. */
const whyColumnsMin = 30;
const nameColumnsMin = 8;

/** The table that `status` and `top` show. Where nothing bounds the lines, `columns` is infinite. */
export function serviceTable(services: readonly MeasuredService[], columns: number): ServiceTable {
  const cells = services.map(cellsOf);
  const widths = titles.map((title, index) =>
    Math.max(title.length, ...cells.map((row) => widthOf(row[index] ?? ""))),
  );
  const taken = widths.reduce((sum, width) => sum + width + gap.length, 0);
  const showsWhy = columns - taken >= whyColumnsMin;
  const missing = Math.max(0, taken - gap.length - columns);
  widths[0] = Math.max(nameColumnsMin, (widths[0] ?? 0) - missing);
  const line = (row: readonly string[], why: string): string => {
    const padded = widths.map((width, index) => fitLinePadded(row[index] ?? "", width));
    return fitLine([...padded, ...(showsWhy ? [why] : [])].join(gap), columns).trimEnd();
  };
  return {
    heading: line(titles, "WHY"),
    rows: services.map((service, index) => line(cells[index] ?? [], whyOf(service))),
    showsWhy,
  };
}

/** Why a service is in its state, for people. */
export function whyOf({ kind, reason }: MeasuredService): string {
  return kind === "external" ? `watched only: ${reason}` : reason;
}

function cellsOf({ kind, ...service }: MeasuredService): string[] {
  const { name, state, since, restarts, pid, cpuPercent, memoryBytes, ports } = service;
  return [
    name,
    styledState(state),
    ago(since),
    kind === "external" ? "" : String(restarts),
    pid === null ? "" : String(pid),
    cpuPercent === null ? "" : `${cpuPercent.toFixed(1)}%`,
    memoryBytes === null ? "" : sizeOf(memoryBytes),
    ports.length > 2 ? `${ports.slice(0, 2).join(",")}+${ports.length - 2}` : ports.join(","),
  ];
}

/** Whether nothing needs to be done about it, as far as this station goes. */
export function isWell(service: ServiceRecord): boolean {
  return service.kind === "external" || isGood(service);
}

/** Whether it is where it should be: ready, done, or waiting for its hour. */
export function isGood(service: ServiceRecord): boolean {
  return hasStarted(service) && service.state !== "unhealthy";
}

/** A time as how long ago it was: 4 s, 12 min, 3 h, 2 d. */
export function ago(iso: string): string {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(iso)) / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6_000) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** Bytes as 900 KiB, 45 MiB, 1.2 GiB. */
export function sizeOf(bytes: number): string {
  if (bytes < 1024 ** 2) return `${Math.round(bytes / 1024)} KiB`;
  return bytes < 1024 ** 3 ? `${Math.round(bytes / 1024 ** 2)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

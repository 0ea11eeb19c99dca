import { styleText } from "node:util";
import type { Config } from "../config/config.ts";
import { askLocally } from "../http/local-client.ts";
import type { SyncStatus } from "../sync/routes/status.ts";
import { oneLine } from "./plain-text.ts";
import { withSync } from "./sync-service.ts";
import { printTable } from "./table.ts";

/**
 * `pugmark sync status`. Exit code 0 where the mirror works, 1 where something keeps it from that or rows were set aside,
 * 3 where there is none.
 */
export async function syncStatus(config: Config, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const status = await askLocally<SyncStatus>(socket, { method: "GET", path: "/status" });
    if (json) console.log(JSON.stringify(status, null, 2));
    else printStatus(status);
    const errors = [status.push_error, status.pull_error, status.inbox_error, status.photos_error];
    const isWell = errors.every((error) => error === null) && status.parked_rows === 0;
    return isWell ? 0 : 1;
  });
}

function printStatus(status: SyncStatus): void {
  const {
    project,
    station,
    state,
    changes_waiting: waiting,
    lag_seconds: lagS,
    history,
    restore,
    parked,
  } = status;
  const lines: [string, string | null][] = [
    ["project", project],
    ["station", station && `${oneLine(station.name ?? "")} (${station.id})`],
    ["state", state],
    [
      "waiting",
      waiting === 0 ? "nothing" : `${counted(waiting, "row")}, the oldest for ${Math.ceil(lagS)} s`,
    ],
    ["sent", local(status.pushed_at)],
    ["fetched", local(status.pulled_at)],
    [
      "history",
      history
        ? `${history.rowsSent.toLocaleString("en")} of ${counted(history.rowsTotal, "row")}, at ${history.table}`
        : (local(status.history_sent_at) ??
          (status.tables.length > 0
            ? "not sent: pugmark sync push --all sends what was there before"
            : null)),
    ],
    [
      "restore",
      restore &&
        `${restore.rowsPulled.toLocaleString("en")} of about ${counted(restore.rowsTotal, "row")}, at ${restore.table}`,
    ],
    ["tables", status.tables.join(", ") || "none"],
    ["trouble", troubleOf(status)],
    ["inbox", status.inbox_error && styleText("red", oneLine(status.inbox_error))],
    ["photos", photosOf(status)],
    [
      "set aside",
      status.parked_rows === 0
        ? null
        : `${counted(status.parked_rows, "row")}; pugmark sync retry, once the cause is gone`,
    ],
  ];
  for (const [name, text] of lines)
    if (text !== null) console.log(`${styleText("dim", name.padEnd(10))} ${text}`);
  if (parked.length === 0) return;
  console.log("");
  printTable(
    ["table", "row", "since", "reason"],
    parked.map(({ table, id, time, parked_at, code, reason }) => [
      table,
      time === null ? id : `${id} ${time}`,
      local(parked_at) ?? "",
      `${code ?? ""} ${oneLine(reason ?? "").slice(0, 120)}`.trim(),
    ]),
  );
}

function troubleOf({ push_error, pull_error, error_since, next_try_at }: SyncStatus): string | null {
  const error = push_error ?? pull_error;
  if (error === null) return null;
  const since = error_since === null ? "" : `, since ${local(error_since)}`;
  const next = next_try_at === null ? "" : `; tries again at ${local(next_try_at)?.slice(11)}`;
  return styleText("red", `${oneLine(error)}${since}${next}`);
}

function photosOf({ photos, photos_error: error }: SyncStatus): string | null {
  if (photos === null) return null;
  const waiting = [
    ...(photos.to_send > 0 ? [`${photos.to_send.toLocaleString("en")} to send`] : []),
    ...(photos.to_fetch > 0 ? [`${photos.to_fetch.toLocaleString("en")} to fetch`] : []),
  ];
  const trouble = error === null ? "" : styleText("red", `; ${oneLine(error)}`);
  return `${waiting.join(", ") || "nothing waits"} (bucket ${photos.bucket})${trouble}`;
}

function counted(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function local(time: string | null): string | null {
  return time === null ? null : new Date(time).toLocaleString("sv-SE"); // reads like an ISO time
}

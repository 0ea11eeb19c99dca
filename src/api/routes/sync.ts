import { Counter, Gauge } from "prom-client";
import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import type { Pool } from "../../store/pool.ts";
import { readRowCounts, readSyncReport, type SyncReport } from "../../store/sync-state.ts";
import { Time } from "../schemas.ts";

const nullable = <T extends ReturnType<typeof Type.String>>(schema: T) => Type.Union([schema, Type.Null()]);

const Report = Type.Object({
  station: Type.Union([Type.Object({ id: Type.String(), name: nullable(Type.String()) }), Type.Null()]),
  tables: Type.Array(Type.String(), { description: "whose changes are recorded, to be sent" }),
  changes_waiting: Type.Number({
    description: "rows that are not in the project yet; where very many, an estimate",
  }),
  lag_seconds: Type.Number({ description: "how long the oldest of them has waited" }),
  parked_rows: Type.Number({ description: "rows that were set aside because one side refuses them" }),
  pushed_at: nullable(Time("when changes were last sent")),
  push_error: nullable(Type.String()),
  pulled_at: nullable(Time("when changes of others were last fetched")),
  pull_error: nullable(Type.String()),
  error_since: nullable(Time("since when something is wrong")),
  history_sent_at: nullable(Time("when all that was there before had been sent")),
  photos: Type.Union(
    [
      Type.Object({
        bucket: Type.String(),
        to_send: Type.Integer({ description: "whose file is not in the project yet" }),
        to_fetch: Type.Integer({ description: "whose file is not here yet" }),
      }),
      Type.Null(),
    ],
    { description: "null where files of photos are not mirrored" },
  ),
});

/** How the mirror to Supabase is doing, as the database knows it: also while the service that mirrors is away. */
export function syncRoutes(app: App, { pool }: { readonly pool: Pool }): void {
  app.get(
    "/api/v1/system/sync",
    {
      schema: {
        tags: ["system"],
        operationId: "syncReport",
        summary: "What waits to be mirrored to the Supabase project, and what keeps it from that",
        description: "`station` is null, and `tables` empty, where no project is connected.",
        response: { 200: Report, ...problems(503) },
      },
    },
    async () => {
      const report = await readSyncReport(pool);
      return { ...report, tables: [...report.tables] };
    },
  );
  syncMetrics(app, pool);
}

/** Read from the database when Prometheus asks. Without a database there are none, and the others are shown all the same. */
function syncMetrics(app: App, pool: Pool): void {
  const registers = [app.metrics];
  let asked: Promise<SyncReport | undefined> | undefined;
  // All metrics are collected at once: one look at the database serves all gauges here.
  const report = () => {
    asked ??= readSyncReport(pool)
      .catch(() => undefined)
      .finally(() => {
        asked = undefined;
      });
    return asked;
  };
  const gauge = (name: string, help: string, value: (report: SyncReport) => number) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        const known = await report();
        if (known) this.set(value(known));
        else this.remove();
      },
    });
  gauge(
    "pugmark_sync_changes_waiting",
    "Rows in changes that are not in the project yet",
    ({ changes_waiting }) => changes_waiting,
  );
  gauge(
    "pugmark_sync_lag_seconds",
    "How long the oldest change has waited that is not in the project, seconds",
    ({ lag_seconds }) => lag_seconds,
  );
  gauge(
    "pugmark_sync_parked_rows",
    "Rows that were set aside because one side refuses them",
    ({ parked_rows }) => parked_rows,
  );
  gauge(
    "pugmark_sync_photos_to_send",
    "Photos whose file is not in the project yet",
    ({ photos }) => photos?.to_send ?? 0,
  );
  gauge(
    "pugmark_sync_photos_to_fetch",
    "Photos whose file is in the project, and not here yet",
    ({ photos }) => photos?.to_fetch ?? 0,
  );
  new Counter({
    name: "pugmark_sync_rows_total",
    help: "Rows that went to the project or came from it, by what became of them",
    labelNames: ["direction", "table", "outcome"] as const,
    registers,
    async collect() {
      const counts = await readRowCounts(pool).catch(() => []);
      this.reset();
      for (const { rows, ...labels } of counts) this.inc(labels, rows);
    },
  });
}

import { Gauge } from "prom-client";
import type { App } from "../http/app.ts";
import type { InteractionLog } from "../store/interaction-log.ts";

/** Shows at `/metrics` how much of the log waits for the database. */
export function journalMetrics(app: App, { status }: InteractionLog): void {
  const gauges = [
    [
      "chat_journal_records",
      "Interactions of this process that wait for the database",
      () => status().records,
    ],
    ["chat_journal_bytes", "Bytes of interactions that wait for the database", () => status().bytes],
    ["chat_journal_oldest_age_seconds", "How long the oldest has waited at most", () => status().oldestAgeS],
  ] as const;
  for (const [name, help, read] of gauges) {
    new Gauge({
      name,
      help,
      registers: [app.metrics],
      collect() {
        this.set(read());
      },
    });
  }
}

import { randomUUID } from "node:crypto";
import type { Random } from "../../src/process-manager/faults/random.ts";
import { stateDeployment } from "../../src/store/deployments.ts";
import { type Pool, query } from "../../src/store/pool.ts";
import { PositionStore } from "../../src/store/positions.ts";

const devicesMax = 60;
const batchMax = 250;
const firstFixAt = Date.UTC(2026, 10, 1);

/** A station's days in minutes: fixes, calls, conversations, edits and deletions, drawn by a seed. */
export class StationLife {
  /** Rows inserted, changed and deleted so far. */
  changes = 0;
  readonly #pool: Pool;
  readonly #random: Random;
  readonly #positions: PositionStore;
  /** Of each device, when its next fix is. */
  readonly #clocks = new Map<string, number>();
  readonly #interactions: string[] = [];
  #step = 0;

  constructor(pool: Pool, random: Random) {
    this.#pool = pool;
    this.#random = random;
    this.#positions = new PositionStore(pool);
  }

  /** Goes on until so many more rows have changed. */
  async live(changes: number): Promise<void> {
    const end = this.changes + changes;
    while (this.changes < end) {
      const deed = this.#random.pick(deeds);
      this.#step += 1;
      this.changes += await this[deed](Math.min(end - this.changes, batchMax));
    }
  }

  /** A delivery, now and then of a device that nobody knows yet, with fixes that are there already. */
  async fixes(most: number): Promise<number> {
    const device = `collar ${this.#random.below(devicesMax)}`;
    const from = this.#clocks.get(device) ?? firstFixAt;
    const count = 1 + this.#random.below(most);
    const again = this.#clocks.has(device) ? this.#random.below(5) : 0;
    const fixes = Array.from({ length: count + again }, (_, index) => {
      const time = from + (index - again) * 60_000;
      return {
        device,
        time,
        lat: this.#random.below(180_000_000) / 1e6 - 90,
        lon: this.#random.below(360_000_000) / 1e6 - 180,
        ...(index % 3 === 0 ? { altitudeM: this.#random.below(8_000) / 7, battery: 1 / 3 } : {}),
        ...(index % 17 === 0
          ? { outlier: "speed", attributesJson: '{"note":"a \\"quoted\\" Ünï\\u0001 {},"}' }
          : {}),
      };
    });
    this.#clocks.set(device, from + count * 60_000);
    return (await this.#positions.ingest(fixes)).accepted;
  }

  async interactions(most: number): Promise<number> {
    const count = 1 + this.#random.below(Math.min(most, 120));
    const rows = Array.from({ length: count }, (_, index) => ({
      id: randomUUID(),
      created_at: new Date(firstFixAt + this.#step * 1_000 + index).toISOString(),
      route: "/chat",
      caller: "local",
      request_id: `request ${this.#step} ${index}`,
      model: "deepseek-r1",
      prompt: [{ role: "user", content: `Where was collar ${index}? 🐾 \\ "'` }],
      parameters: { temperature: 0.7, seed: 2 ** 53 - 1 },
      response: "x".repeat(this.#random.below(2_000)),
      cached: index % 2 === 0,
      outcome: "ok",
      processing_time_ms: this.#random.below(1_000_000) / 7,
    }));
    this.#interactions.push(...rows.map(({ id }) => id));
    return await this.#execute(
      `insert into public.interactions
         (id, created_at, route, caller, request_id, model, prompt, parameters, response, cached, outcome, processing_time_ms)
       select id, created_at, route, caller, request_id, model, prompt, parameters, response, cached, outcome, processing_time_ms
       from jsonb_populate_recordset(null::public.interactions, $1)`,
      JSON.stringify(rows),
    );
  }

  /** A conversation goes on, and the oldest one is deleted at times. */
  async conversations(): Promise<number> {
    const id = `session ${this.#random.below(30)}`;
    const at = new Date(firstFixAt + this.#step * 1_000).toISOString();
    const told = await this.#execute(
      `insert into public.conversations (caller, id, title, created_at, last_used_at) values ('local', $1, $2, $3, $3)
       on conflict (caller, id) where station_id is null do update set last_used_at = excluded.last_used_at, summary = $2`,
      id,
      `step ${this.#step}`,
      at,
    );
    if (this.#random.below(5) > 0) return told;
    return (
      told +
      (await this.#execute(
        `delete from public.conversations where (caller, id) in
         (select caller, id from public.conversations order by last_used_at limit 1)`,
      ))
    );
  }

  async subjectEdits(): Promise<number> {
    return await this.#execute(
      `update public.subjects set species = $1, attributes = jsonb_build_object('step', $2::int)
       where name in (select name from public.subjects order by md5(name || $1) limit 3)`,
      `species ${this.#step}`,
      this.#step,
    );
  }

  /** A device turns out to have been on another subject for a while: its deployments are made anew. */
  async deployments(): Promise<number> {
    const device = `collar ${this.#random.below(devicesMax)}`;
    const until = this.#clocks.get(device);
    if (until === undefined) return 0;
    const firstAt = firstFixAt + this.#random.below(until - firstFixAt);
    const lastAt = firstAt + this.#random.below(until - firstAt);
    const subject = `subject ${this.#random.below(10)}`;
    const stated = await stateDeployment(this.#pool, { device, subject, firstAt, lastAt });
    return stated?.changed ? 1 : 0;
  }

  async deletedFixes(most: number): Promise<number> {
    return await this.#execute(
      `delete from public.positions where (device_id, time) in (
         select device_id, time from public.positions
         where device_id = (select device_id from public.last_positions order by md5(device_id::text || $1) limit 1)
         order by time limit $2)`,
      String(this.#step),
      this.#random.below(Math.min(most, 60)),
    );
  }

  async deletedInteractions(most: number): Promise<number> {
    const from = this.#random.below(this.#interactions.length + 1);
    const ids = this.#interactions.splice(from, this.#random.below(Math.min(most, 40)));
    return await this.#execute("delete from public.interactions where id = any($1)", ids);
  }

  async #execute(statement: string, ...values: unknown[]): Promise<number> {
    return (await query(this.#pool, statement, values)).rowCount ?? 0;
  }
}

const deeds = [
  "fixes",
  "fixes",
  "fixes",
  "interactions",
  "interactions",
  "conversations",
  "subjectEdits",
  "deployments",
  "deletedFixes",
  "deletedInteractions",
] as const;

import type { PoolClient } from "pg";
import { v7 as uuidv7 } from "uuid";
import type { ReportedFix } from "../tracking/fix.ts";
import { bareGuess, toldGuess } from "./guesses.ts";
import { deploymentIdOf, deviceIdOf, subjectIdOf } from "./known-ids.ts";
import { type Pool, query, transaction } from "./pool.ts";

/** Who reports, and on whom it is where it is new. */
export type Reporter = Pick<ReportedFix, "device" | "subject" | "species">;

const keysHeldMax = 100_000;

/** The ids of device keys, held in memory; what is not known yet is registered when first asked for. */
export class DeviceIds {
  readonly #pool: Pool;
  readonly #ids = new Map<string, string>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** The id of each reporter's device, in order; registers the new ones. Throws `StoreError` `database-away`. */
  async of(reporters: readonly Reporter[]): Promise<string[]> {
    const held = reporters.map(({ device }) => this.#ids.get(device));
    const unknown = reporters.filter((_, index) => held[index] === undefined);
    if (unknown.length === 0) return held as string[];
    const learned = await this.#learn(unknown);
    return held.map((id, index) => id ?? (learned.get(reporters[index]?.device ?? "") as string));
  }

  async #learn(reporters: readonly Reporter[]): Promise<Map<string, string>> {
    const byKey = new Map(reporters.toReversed().map((reporter) => [reporter.device, reporter]));
    const found = await readIds(this.#pool, [...byKey.keys()]);
    const missing = [...byKey.values()].filter(({ device }) => !found.has(device));
    const registered = missing.length > 0 ? await registerDevices(this.#pool, missing) : [];
    const learned = new Map([...found, ...registered]);
    // Bounded by forgetting everything: a station with so many devices reads some of them again.
    if (this.#ids.size + learned.size > keysHeldMax) this.#ids.clear();
    for (const [key, id] of learned) this.#ids.set(key, id);
    return learned;
  }
}

/** The id of a device by its key; undefined where there is none. */
export async function findDevice(pool: Pool, key: string): Promise<string | undefined> {
  // Postgres takes no NUL in a text, so no key has one.
  if (key.includes("\0")) return undefined;
  return (await readIds(pool, [key])).get(key);
}

/**
 * Makes the lock that every change of devices, subjects by name and deployments takes first, so that two
 * processes which meet the same new device register it once.
 */
export async function lockRegistry(client: PoolClient): Promise<void> {
  await client.query("select pg_advisory_xact_lock(7203, 2)");
}

/** Gives the ids of subjects by name, and registers those that are new. Needs `lockRegistry`. */
export async function registerSubjects(
  client: PoolClient,
  subjects: readonly { readonly name: string; readonly species?: string | undefined }[],
): Promise<Map<string, string>> {
  const names = subjects.map(({ name }) => name);
  await client.query(
    // One that was renamed keeps the id of its old name, which whoever bears that name now cannot have.
    `insert into public.subjects (id, name, species, changed_at)
     select distinct on (name)
       case when exists (select from public.subjects where id = known_id) then new_id else known_id end,
       name, species, changed_at
     from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[])
       with ordinality as given (known_id, new_id, name, species, changed_at, place)
     where not exists (select from public.subjects taken where taken.name = given.name) order by name, place`,
    [
      names.map(subjectIdOf),
      names.map(() => uuidv7()),
      names,
      subjects.map(({ species }) => species ?? null),
      subjects.map(({ species }) => (species === undefined ? bareGuess : toldGuess)),
    ],
  );
  const { rows } = await client.query<{ id: string; name: string }>(
    "select id, name from public.subjects where name = any($1)",
    [names],
  );
  return new Map(rows.map(({ id, name }) => [name, id]));
}

/**
 * Registers devices, each with an open deployment on the subject that its report names, or on one of the
 * device's own name. A subject that exists by that name is taken.
 */
async function registerDevices(pool: Pool, reporters: readonly Reporter[]): Promise<Map<string, string>> {
  return transaction(pool, async (client) => {
    await lockRegistry(client);
    const keys = reporters.map(({ device }) => device);
    const { rows: fresh } = await client.query<{ id: string; key: string }>(
      `insert into public.devices (id, key, changed_at)
       select case when exists (select from public.devices where id = known_id) then new_id else known_id end, key, $4
       from unnest($1::uuid[], $2::uuid[], $3::text[]) as given (known_id, new_id, key)
       on conflict (key) do nothing returning id, key`,
      [keys.map(deviceIdOf), keys.map(() => uuidv7()), keys, bareGuess],
    );
    const wanted = new Map(
      reporters.map(({ device, subject, species }) => [
        device,
        { name: subject ?? device, species, version: subject === undefined ? bareGuess : toldGuess },
      ]),
    );
    const named = fresh.map(({ key }) => wanted.get(key) ?? { name: key, version: bareGuess });
    const subjects = await registerSubjects(client, named);
    const subjectIds = named.map(({ name }) => subjects.get(name) as string);
    await client.query(
      `insert into public.deployments (id, device_id, subject_id, changed_at)
       select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[])`,
      [
        fresh.map(({ id }, index) => deploymentIdOf(id, subjectIds[index] as string, "-infinity")),
        fresh.map(({ id }) => id),
        subjectIds,
        named.map(({ version }) => version),
      ],
    );
    const { rows } = await client.query<{ id: string; key: string }>(
      "select id, key from public.devices where key = any($1)",
      [keys],
    );
    return new Map(rows.map(({ id, key }) => [key, id]));
  });
}

async function readIds(pool: Pool, keys: readonly string[]): Promise<Map<string, string>> {
  const { rows } = await query<{ id: string; key: string }>(
    pool,
    "select id, key from public.devices where key = any($1)",
    [keys],
  );
  return new Map(rows.map(({ id, key }) => [key, id]));
}

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { after, before, test } from "node:test";
import pg from "pg";
import { projectRoot } from "../src/config/config.ts";
import { migrate } from "../src/store/migrate.ts";
import { type HostedDatabase, hostedDatabase } from "./support/hosted-database.ts";

/** A user without more, one whom the owner made a member, and one who may also edit: all are `authenticated`. */
const roles = ["anon", "user", "member", "editor", "service_role", "pugmark_app", "pugmark_reader"] as const;
type Role = (typeof roles)[number];

/**
 * What each role may do with each table, once it has rows of all kinds. `s`ees rows, `i`nserts, `u`pdates, `d`eletes.
 * A small letter: may ask, and no row is there for it, or none may be added. A dot: is refused.
 */
const expected: Record<string, Record<Role, string>> = {
  "public.stations": is("....", "s...", "S...", "S...", "SIUD", "SIUD", "S..."),
  "public.devices": is("....", "s...", "S...", "S...", "SIUD", "SIUD", "S..."),
  "public.subjects": is("....", "siu.", "Siu.", "SIU.", "SIUD", "SIUD", "S..."),
  "public.deployments": is("....", "siud", "Siud", "SIUD", "SIUD", "SIUD", "S..."),
  "public.photos": is("....", "s...", "S...", "S...", "SIUD", "SIUD", "S..."),
  "public.positions": is("....", "s...", "S...", "S...", "SIUD", "SIUD", "S..."),
  "public.positions_y2024m03": is("....", "....", "....", "....", "....", "....", "...."),
  "public.last_positions": is("....", "s...", "S...", "S...", "S...", "SIUD", "S..."),
  "public.interactions": is("....", "....", "....", "....", "SIUD", "SIUD", "...."),
  "public.conversations": is("....", "....", "....", "....", "SIUD", "SIUD", "...."),
  "public.members": is("....", "s...", "S...", "S...", "SIUD", "....", "...."),
  "public.device_keys": is("....", "....", "....", "....", "SIUD", "....", "...."),
  "public.inbox": is("....", "....", "....", "....", "SIUD", "....", "...."),
  "public.files": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "public.file_chunks": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "public.batches": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "public.batch_lines": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "sync.mirrored_tables": is("....", "....", "....", "....", "S...", "S.U.", "...."),
  "sync.changes": is("....", "....", "....", "....", "S...", "SI.D", "...."),
  "sync.row_counts": is("....", "....", "....", "....", "....", "SIU.", "...."),
  "sync.push_progress": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "sync.pull_progress": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "sync.photo_files": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "sync.photo_objects": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "sync.parked_rows": is("....", "....", "....", "....", "....", "SIUD", "...."),
  "sync.overruled_rows": is("....", "....", "....", "....", "....", "S..D", "...."),
  "sync.state": is("....", "....", "....", "....", "S...", "S.U.", "...."),
  "sync.inbox_taken": is("....", "....", "....", "....", "....", "SI.D", "...."),
};

function is(...rights: string[]): Record<Role, string> {
  return Object.fromEntries(roles.map((role, index) => [role, rights[index]])) as Record<Role, string>;
}

const users: Partial<Record<Role, string>> = {
  user: randomUUID(),
  member: randomUUID(),
  editor: randomUUID(),
};

/** A row that each table takes, and the column of it that is updated. */
const rows: Record<string, { readonly columns: string; readonly values: string; readonly set: string }> = {
  "public.stations": row("id, name", "gen_random_uuid(), 'n'", "name"),
  "public.devices": row("id, key", "gen_random_uuid(), gen_random_uuid()::text", "key"),
  "public.subjects": row("id, name", "gen_random_uuid(), gen_random_uuid()::text", "name"),
  "public.deployments": row(
    "id, device_id, subject_id, ended_at",
    "gen_random_uuid(), $DEVICE, $SUBJECT, '1970-01-01'",
    "subject_id",
  ),
  "public.photos": row(
    "id, subject_id, sha256, media_type, bytes",
    "gen_random_uuid(), $SUBJECT, repeat('0', 64), 'image/png', 1",
    "caption",
  ),
  "public.positions": row("device_id, time, lat, lon", "gen_random_uuid(), '2024-03-01', 1, 2", "lat"),
  "public.positions_y2024m03": row(
    "device_id, time, lat, lon",
    "gen_random_uuid(), '2024-03-01', 1, 2",
    "lat",
  ),
  "public.last_positions": row("device_id, time", "gen_random_uuid(), now()", "time"),
  "public.interactions": row(
    "id, created_at, route, caller, request_id, model, prompt, outcome, processing_time_ms",
    "gen_random_uuid(), now(), 'r', 'c', 'q', 'm', '{}', 'ok', 1",
    "route",
  ),
  "public.conversations": row(
    "caller, id, title, created_at, last_used_at",
    "'c', gen_random_uuid()::text, 't', now(), now()",
    "title",
  ),
  "public.members": row("user_id", "gen_random_uuid()", "can_write"),
  "public.device_keys": row(
    "id, device, key_hash",
    "gen_random_uuid(), 'd', encode(sha256(gen_random_uuid()::text::bytea), 'hex')",
    "device",
  ),
  "public.inbox": row("id, device, fixes", "gen_random_uuid(), 'd', '[]'", "device"),
  "public.files": row(
    "id, caller, filename, purpose, bytes, created_at, is_whole",
    "gen_random_uuid()::text, 'c', 'f', 'p', 1, now(), true",
    "purpose",
  ),
  "public.file_chunks": row("file_id, index, content", "$FILE, (random() * 1e9)::int, ''", "content"),
  "public.batches": row(
    "id, caller, endpoint, input_file_id, completion_window, status, created_at, expires_at",
    "gen_random_uuid()::text, 'c', 'e', 'f', 'w', 'failed', now(), now()",
    "caller",
  ),
  "public.batch_lines": row(
    "batch_id, line, custom_id, body",
    "$BATCH, (random() * 1e9)::int, 'c', '{}'",
    "body",
  ),
  "sync.mirrored_tables": row(
    "table_name, key_columns, rank, is_edited",
    "gen_random_uuid()::text, '{id}', 1, false",
    "is_recorded",
  ),
  "sync.changes": row("table_name, is_deleted, ids", "'subjects', false, '{}'", "ids"),
  "sync.row_counts": row(
    "direction, table_name, outcome, rows",
    "'push', gen_random_uuid(), 'sent', 1",
    "rows",
  ),
  "sync.push_progress": row("table_name, rows_total", "gen_random_uuid(), 1", "is_done"),
  "sync.pull_progress": row("table_name, rows_total", "gen_random_uuid(), 1", "is_done"),
  "sync.photo_files": row("photo_id, is_here", "$PHOTO, true", "attempts"),
  "sync.photo_objects": row("photo_id, bucket, name", "gen_random_uuid(), 'b', 'n'", "name"),
  "sync.parked_rows": row(
    "direction, table_name, row_id, reason",
    "'push', 't', gen_random_uuid(), 'r'",
    "reason",
  ),
  "sync.overruled_rows": row(
    "table_name, row_id, row, changed_at",
    "'t', gen_random_uuid(), '{}', now()",
    "row",
  ),
  "sync.state": row("only_row", "false", "station_name"),
  "sync.inbox_taken": row("id", "gen_random_uuid()", "taken_at"),
};

function row(columns: string, values: string, set: string) {
  return { columns, values, set };
}

let database: HostedDatabase;
let client: pg.Client;

before(async () => {
  database = await hostedDatabase();
  await migrate(database.url, join(projectRoot, "supabase/migrations"));
  client = new pg.Client({ connectionString: database.adminUrl });
  await client.connect();
  await client.query("select public.ensure_positions_partition('2024-03-01')");
  // A row for everybody to see and touch, parents first; the state of the mirror has its own.
  const unready = [...Object.keys(rows)].filter((table) => !/state|mirrored|y2024/.test(table));
  // A photo has one file here: of two, one is left to add it to.
  const photos = ["public.photos", "public.photos"];
  const first = ["public.devices", "public.subjects", "public.files", "public.batches", ...photos];
  for (const table of [...first, ...unready.filter((name) => !first.includes(name))]) {
    await client.query(await insertOf(table));
  }
  await client.query("insert into public.members values ($1, false), ($2, true)", [
    users.member,
    users.editor,
  ]);
});
after(async () => {
  await client.end();
  await database[Symbol.asyncDispose]();
});

async function insertOf(table: string): Promise<string> {
  const { columns, values } = rows[table] ?? { columns: "", values: "" };
  let text = `insert into ${table} (${columns}) values (${values})`;
  for (const [name, parent] of [
    ["$DEVICE", "devices"],
    ["$SUBJECT", "subjects"],
    ["$FILE", "files"],
    ["$BATCH", "batches"],
    ["$PHOTO", "photos where id not in (select photo_id from sync.photo_files)"],
  ] as const) {
    if (!text.includes(name)) continue;
    const found = await client.query(`select id from public.${parent} limit 1`);
    text = text.replace(name, `'${found.rows[0].id}'`);
  }
  return text;
}

/** What the role may do with the table, as in `expected`; nothing of it stays. */
async function rightsOf(table: string, role: Role): Promise<string> {
  const { set } = rows[table] ?? { set: "" };
  const attempts = [
    ["s", `select 1 from ${table} limit 1`],
    ["i", await insertOf(table)],
    ["u", `update ${table} set ${set} = ${set}`],
    ["d", `delete from ${table}`],
  ] as const;
  let rights = "";
  for (const [letter, statement] of attempts) rights += await attempt(role, letter, statement);
  return rights;
}

async function attempt(role: Role, letter: string, statement: string): Promise<string> {
  const claims = JSON.stringify({ sub: users[role] ?? "" });
  await client.query("begin");
  try {
    await client.query("select set_config('request.jwt.claims', $1, true)", [claims]);
    await client.query(`set local role ${role in users ? "authenticated" : role}`);
    const { rowCount } = await client.query(statement);
    return rowCount === 0 ? letter : letter.toUpperCase();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    // Allowed, and there are rows that refer to it.
    if (code === "23503") return letter.toUpperCase();
    if (code !== "42501") throw new Error(`${role}: ${statement}: ${message}`, { cause: error });
    // Not its table, or a row that its policies do not let it add.
    return /row-level security/.test(message) ? letter : ".";
  } finally {
    await client.query("rollback");
  }
}

test("every table of ours has its line here", async () => {
  const { rows: tables } = await client.query<{ name: string }>(
    `select format('%s.%s', relnamespace::regnamespace, relname) as name from pg_class
     where relnamespace in ('public'::regnamespace, 'sync'::regnamespace) and relkind in ('r', 'p', 'v', 'm') order by 1`,
  );
  assert.deepEqual(
    tables.map(({ name }) => name),
    Object.keys(expected).sort(),
  );
});

for (const role of roles) {
  test(`what ${role} may do with each table, and no more`, async () => {
    const found: Record<string, string> = {};
    for (const table of Object.keys(expected)) found[table] = await rightsOf(table, role);
    const wanted = Object.fromEntries(
      Object.entries(expected).map(([table, rights]) => [table, rights[role]]),
    );
    assert.deepEqual(found, wanted);
  });
}

test("nobody but the owner may empty a table, refer to it or put triggers on it", async () => {
  const { rows: grants } = await client.query(
    `select distinct grantee, table_name, privilege_type from information_schema.role_table_grants
     where table_schema in ('public', 'sync') and privilege_type in ('TRUNCATE', 'REFERENCES', 'TRIGGER')
       and grantee in ('PUBLIC', 'anon', 'authenticated', 'service_role', 'pugmark_app', 'pugmark_reader')`,
  );
  assert.deepEqual(grants, []);
});

test("only the service role may call what stations call, and anon may call nothing", async () => {
  const { rows: callable } = await client.query<{ role: string; names: string[] }>(
    `select role, array_agg(p.proname::text order by p.proname) as names
     from unnest(array['anon', 'authenticated', 'service_role']) role, pg_proc p
     where p.pronamespace = 'public'::regnamespace and has_function_privilege(role, p.oid, 'execute')
     group by role`,
  );
  assert.deepEqual(callable, [
    {
      role: "service_role",
      names: [
        ...["ensure_positions_partition", "inbox_acknowledge", "inbox_take"],
        ...[
          "interaction_question",
          "interaction_words",
          "sync_announce",
          "sync_changes",
          "sync_checksum",
          "sync_head",
          "sync_project_state",
        ],
      ],
    },
  ]);
});

test("a member cannot pass an edit off as another station's", async () => {
  for (const statement of [
    "update public.subjects set changed_at = '2100-01-01'",
    `update public.subjects set changed_by = '${randomUUID()}'`,
    `update public.subjects set station_id = '${randomUUID()}'`,
  ]) {
    assert.equal(await attempt("editor", "u", statement), ".");
  }
});

test("without a user in its token, a request of an account sees nothing", async () => {
  await client.query("begin");
  await client.query("set local role authenticated");
  await client.query("select set_config('request.jwt.claims', '{}', true)");
  const { rowCount } = await client.query("select from public.subjects");
  await client.query("rollback");
  assert.equal(rowCount, 0);
});

test("the service role does its work where it may not bypass row level security, too", async () => {
  const { rows: without } = await client.query(
    `select distinct table_schema, table_name from information_schema.role_table_grants g
     where grantee = 'service_role' and table_schema in ('public', 'sync') and not exists (
       select from pg_policies p
       where p.schemaname = g.table_schema and p.tablename = g.table_name and 'service_role' = any (p.roles)
     )`,
  );
  assert.deepEqual(without, []);
});

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { SignJWT } from "jose";
import pg from "pg";
import { type SupabaseProject, startSupabaseProject } from "./supabase-project.ts";

let project: SupabaseProject;
let database: pg.Client;

before(async () => {
  project = await startSupabaseProject();
  database = new pg.Client({ connectionString: project.databaseUrl });
  await database.connect();
  await database.query(`
    create table public.things (id int primary key, secret text, owner text default 'nobody');
    alter table public.things enable row level security;
    create policy owners on public.things for select to authenticated
      using (owner = current_setting('request.jwt.claim.sub', true));
    grant select on public.things to service_role, authenticated;
    grant insert (id, owner) on public.things to service_role;
    insert into public.things values (1, 'a', '00000000-0000-0000-0000-000000000001'), (2, 'b', 'nobody');`);
  await project.restart();
});
after(async () => {
  await database.end();
  await project[Symbol.asyncDispose]();
});

function client(key: string, accessToken?: string): SupabaseClient {
  return createClient(project.url, key, {
    auth: { persistSession: false, autoRefreshToken: false },
    ...(accessToken ? { accessToken: async () => accessToken } : {}),
  });
}

test("each role may do what it was granted, and nothing else", async () => {
  const service = client(project.secretKey).from("things");
  assert.equal((await service.select()).data?.length, 2);
  assert.equal((await service.insert({ id: 3, owner: "nobody" })).error, null);
  assert.equal((await service.insert({ id: 4, secret: "c" })).error?.code, "42501");
  assert.equal((await service.delete().eq("id", 3)).error?.code, "42501");
  assert.equal((await client(project.publishableKey).from("things").select()).error?.code, "42501");
});

test("a user sees what the policies show", async () => {
  const token = await new SignJWT({ role: "authenticated", sub: "00000000-0000-0000-0000-000000000001" })
    .setProtectedHeader({ alg: "HS256" })
    .setExpirationTime("1 minute")
    .sign(new TextEncoder().encode(project.jwtSecret));
  const { data, error } = await client(project.publishableKey, token).from("things").select("id");
  assert.deepEqual(data, [{ id: 1 }], error?.message);
});

test("a project that was killed comes back at the same address, with its rows and its grants", async () => {
  await project.kill();
  const reachable = await fetch(project.url).then(
    () => true,
    () => false,
  );
  assert.equal(reachable, false);
  await project.restart();
  const { data, error } = await client(project.secretKey).from("things").select("id").eq("id", 1);
  assert.deepEqual(data, [{ id: 1 }], error?.message);
  const refused = await client(project.publishableKey).from("things").select();
  assert.equal(refused.error?.code, "42501");
});

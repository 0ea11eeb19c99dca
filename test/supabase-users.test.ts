import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClient } from "@supabase/supabase-js";
import { decodeJwt, SignJWT } from "jose";
import { createApi } from "../src/api/app.ts";
import { loadConfig } from "../src/config/config.ts";
import type { App } from "../src/http/app.ts";
import { openPool, type Pool } from "../src/store/pool.ts";
import { testDatabase } from "./support/postgres.ts";
import { type SupabaseProject, startSupabaseProject } from "./support/supabase-project.ts";

let project: SupabaseProject;
let database: Awaited<ReturnType<typeof testDatabase>>;
let pool: Pool;
let api: App;
before(async () => {
  [project, database] = await Promise.all([startSupabaseProject(), testDatabase()]);
  pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  const { config } = loadConfig(
    {
      LOG_LEVEL: "fatal",
      SUPABASE_URL: project.url,
      SUPABASE_JWT_SECRET: project.jwtSecret,
      PUGMARK_API_KEYS: "web:web-key-0123456789:admin",
    },
    "/nowhere/.env",
  );
  api = await createApi({ config, pool });
});
after(async () => {
  await api.close();
  await pool.end();
  await database[Symbol.asyncDispose]();
  await project[Symbol.asyncDispose]();
});

async function subjects(token: string): Promise<[status: number, code: string | undefined]> {
  const { statusCode, json } = await api.inject({
    url: "/api/v1/subjects",
    headers: { host: "127.0.0.1", authorization: `Bearer ${token}` },
  });
  return [statusCode, json().code];
}

test("somebody who signs up at the project is known here, and may do what its owner says", async () => {
  const client = createClient(project.url, project.publishableKey, { auth: { persistSession: false } });
  const { data, error } = await client.auth.signUp({
    email: "jane@example.org",
    password: "correct-horse-9",
  });
  assert.equal(error, null);
  const token = data.session?.access_token ?? "";
  assert.deepEqual(await subjects(token), [403, "scope-missing"]);

  // The project of the tests leaves app_metadata out of its tokens: the same token as a real one has it.
  const owned = { ...decodeJwt(token), app_metadata: { provider: "email", pugmark_scopes: ["read"] } };
  const secret = new TextEncoder().encode(project.jwtSecret);
  const withScope = await new SignJWT(owned).setProtectedHeader({ alg: "HS256" }).sign(secret);
  assert.deepEqual(await subjects(withScope), [200, undefined]);
});

test("the project's own keys open nothing here", async () => {
  assert.deepEqual(await subjects(project.publishableKey), [401, "key-unknown"]);
  assert.deepEqual(await subjects(project.secretKey), [401, "key-unknown"]);
});

// The program behind `startSupabaseProject`: @supabase/lite on one port, with the grants of our migrations and no others.
// Its settings come as its parent's first message, so that no key is in the list of processes.
import { once } from "node:events";
import { serve } from "@hono/node-server";
import { App, setExperimental } from "@supabase/lite";
import { createPostgresConnection } from "@supabase/lite/postgres";
import pg from "pg";
import { objectsIn } from "./storage-objects.ts";

export interface SupabaseServerSettings {
  readonly databaseUrl: string;
  readonly port: number;
  readonly jwtSecret: string;
  readonly publishableKey: string;
  readonly secretKey: string;
  /** Where Storage keeps its objects. */
  readonly folder: string;
}

const roles = "anon, authenticated, service_role";

// Whoever started it has gone.
process.once("disconnect", () => process.exit());
const [settings] = (await once(process, "message")) as [SupabaseServerSettings];

const database = new pg.Client({ connectionString: settings.databaseUrl });
await database.connect();
const ours = await grants(database);
setExperimental("storage", true);
const app = new App({
  connection: createPostgresConnection({
    url: settings.databaseUrl,
    postgresOptions: { onnotice: () => {}, connection: { application_name: "supabase" } },
  }),
  auth: {
    enabled: true,
    jwt_secret: settings.jwtSecret,
    publishable_key: settings.publishableKey,
    secret_key: settings.secretKey,
  },
  storage: { enabled: true, file_size_limit: "50MiB" },
});
app._storageAdapter = objectsIn(settings.folder);
await app.ensureSystemSchema();
// The first request is what makes it grant everything to everybody.
const first = new Request(`http://127.0.0.1:${settings.port}/rest/v1/subjects?limit=1`, {
  headers: { apikey: settings.secretKey },
});
const { status } = await app.fetch(first);
if (status >= 500) throw new Error(`the project answers ${status}`);
await restore(database, ours);
await database.end();

const server = serve({
  port: settings.port,
  hostname: "127.0.0.1",
  // With Response replaced, answers have two lengths, and clients refuse them.
  overrideGlobalObjects: false,
  fetch: (request, env) => app.fetch(request, { peerAddress: env.incoming.socket.remoteAddress ?? null }),
});
if (!server.listening) await once(server, "listening");
process.send?.("ready");

interface Grants {
  /** Schemas other than its own and the system's. */
  readonly schemas: readonly string[];
  readonly statements: readonly string[];
}

/** The statements that grant those roles what they may do now with schemas, tables, columns and sequences. */
async function grants(client: pg.Client): Promise<Grants> {
  const schemas = await client.query(
    `select quote_ident(nspname) as name from pg_namespace
     where nspname !~ '^pg_' and nspname not in ('information_schema', 'auth', 'storage', 'extensions')`,
  );
  const { rows } = await client.query(
    `with ours as (
       select oid, quote_ident(nspname) as schema, nspacl from pg_namespace
       where nspname !~ '^pg_' and nspname not in ('information_schema', 'auth', 'storage', 'extensions')
     ), granted as (
       select 'schema ' || schema as what, '' as columns, acl.* from ours, aclexplode(nspacl) acl
       union all
       select case relkind when 'S' then 'sequence ' else 'table ' end || schema || '.' || quote_ident(relname), '', acl.*
       from pg_class join ours on ours.oid = relnamespace, aclexplode(relacl) acl
       union all
       select 'table ' || schema || '.' || quote_ident(relname), '(' || quote_ident(attname) || ')', acl.*
       from pg_attribute join pg_class on pg_class.oid = attrelid join ours on ours.oid = relnamespace, aclexplode(attacl) acl
     )
     select format('grant %s %s on %s to %I', privilege_type, columns, what, rolname) as statement
     from granted join pg_roles on pg_roles.oid = grantee
     where rolname in ('anon', 'authenticated', 'service_role')`,
  );
  return {
    schemas: schemas.rows.map(({ name }) => name),
    statements: rows.map(({ statement }) => statement),
  };
}

/** Takes everything back from those roles, and grants what they had. */
async function restore(client: pg.Client, { schemas, statements }: Grants): Promise<void> {
  const revoked = schemas.flatMap((schema) => [
    `revoke all on all tables in schema ${schema} from ${roles}`,
    `revoke all on all sequences in schema ${schema} from ${roles}`,
    `revoke all on schema ${schema} from ${roles}`,
    `alter default privileges in schema ${schema} revoke all on tables from ${roles}`,
    `alter default privileges in schema ${schema} revoke all on sequences from ${roles}`,
  ]);
  await client.query(["begin", ...revoked, ...statements, "commit"].join(";\n"));
}

// A Supabase project to measure against. A real one is on another machine: this one runs at a low priority, so that it takes
// less of what the station would otherwise have for itself.
import { once } from "node:events";
import { giveWay } from "../../src/sync/priority.ts";
import { startSupabaseProject } from "../../test/support/supabase-project.ts";

export interface ProjectAddress {
  readonly url: string;
  readonly secretKey: string;
  readonly databaseUrl: string;
}

giveWay();
await using project = await startSupabaseProject();
const { url, secretKey, databaseUrl } = project;
process.send?.({ url, secretKey, databaseUrl } satisfies ProjectAddress);
await once(process, "disconnect");

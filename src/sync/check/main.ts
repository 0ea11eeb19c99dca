// Checks the project once and prints what it found, as JSON: the one program beside the sync service that uses the
// service-role key, and it ends at once. `pugmark supabase setup` and `pugmark doctor` run it.
import { join } from "node:path";
import { loadConfig, projectRoot } from "../../config/config.ts";
import { readMigrations } from "../../store/migrate.ts";
import { checkProject } from "./check-project.ts";

const { config } = loadConfig();
const report = await checkProject({
  url: config.SUPABASE_URL ?? "",
  publishableKey: config.SUPABASE_KEY,
  secretKey: config.SUPABASE_SERVICE_ROLE,
  photosBucket: config.SUPABASE_PHOTOS_BUCKET,
  hasJwtSecret: config.SUPABASE_JWT_SECRET !== undefined,
  versions: readMigrations(join(projectRoot, "supabase", "migrations")).map(({ version }) => version),
});
process.stdout.write(JSON.stringify(report));

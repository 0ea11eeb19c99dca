import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { entry } from "./project.fixture.ts";

/** For tests: the command line as in `pugmark … | true`, where nobody reads what it prints. */
export async function unread(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<{ code: number | null; err: string }> {
  const child = spawn(process.execPath, [entry, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  const [err, [code]] = await Promise.all([text(child.stderr), once(child, "close")]);
  return { code, err };
}

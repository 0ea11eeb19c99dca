import { readFileSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../../../src/config/config.ts";
import { freePort } from "../../../test/support/ports.ts";
import { type Gateway, startProgram } from "./gateway.ts";

const versionOf = (name: string): string =>
  JSON.parse(readFileSync(join(projectRoot, "node_modules", name, "package.json"), "utf8")).version;

/** What the libraries cost that ours is made of, before it does anything. */
export const floor: Gateway = {
  title: "floor: Fastify + undici",
  version: async () => ({ version: `${versionOf("fastify")} + ${versionOf("undici")}` }),
  start: async (lmStudio) => {
    const port = await freePort();
    const program = join(import.meta.dirname, "floor-server.ts");
    return await startProgram(
      [process.execPath, program, String(port), lmStudio],
      `http://127.0.0.1:${port}`,
    );
  },
};

import { execFile } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { projectRoot } from "../../../src/config/config.ts";
import { freePort } from "../../../test/support/ports.ts";
import { type Gateway, startProgram } from "./gateway.ts";

const version = "1.15.2";
const folder = join(projectRoot, "node_modules", ".cache", "bench-gateway", `portkey-${version}`);
const program = join(folder, "node_modules", "@portkey-ai", "gateway", "build", "start-server.js");

/** Portkey's open gateway as npm installs it, in a folder of its own. */
export const portkey: Gateway = {
  title: "Portkey",
  version: async () => {
    if (existsSync(program)) return { version };
    mkdirSync(folder, { recursive: true });
    const args = ["install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"];
    const failure = await promisify(execFile)("npm", [...args, `@portkey-ai/gateway@${version}`]).then(
      () => undefined,
      (error: Error) => error.message.split("\n")[0] ?? "",
    );
    return failure === undefined ? { version } : { missing: failure };
  },
  start: async (lmStudio) => {
    const port = await freePort();
    return await startProgram(
      [process.execPath, program, `--port=${port}`, "--headless"],
      `http://127.0.0.1:${port}`,
      {
        headers: {
          // The cache is asked for here; the build that npm has was made without it.
          "x-portkey-config": JSON.stringify({
            provider: "openai",
            api_key: "none",
            custom_host: `${lmStudio}/v1`,
            cache: { mode: "simple" },
          }),
        },
      },
    );
  },
};

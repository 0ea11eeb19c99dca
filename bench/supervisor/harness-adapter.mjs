// The adapter of a black-box harness for process supervisors: `pugmark up -f` on a plain JSON file, with held sockets.
import { spawn } from "node:child_process";
import { openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../../bin/main.mjs", import.meta.url));
const file = (ctx) => join(ctx.dir, "services.json");
const home = (ctx) => join(ctx.dir, ".pugmark");
// The machine's own settings must not count.
const environment = ({ PUGMARK_HOME, ...env }) => env;

function definitionOf({ argv, env, port, health, restart, stopTimeoutMs }) {
  return {
    command: argv,
    env,
    stop: { timeoutMs: stopTimeoutMs },
    logs: { files: 40 }, // the flood is counted afterwards
    restart: { policy: restart ? "always" : "never" },
    ...(port ? { listen: { port, hold: true }, readiness: { kind: "ipc" } } : {}),
    ...(health
      ? { liveness: { kind: "http", url: "/", periodMs: 1_000, timeoutMs: 1_000, failureThreshold: 3 } }
      : {}),
  };
}

/** Runs a verb to its end and gives what it printed. */
async function pugmark(ctx, ...args) {
  const child = spawn(ctx.node, [main, ...args], { env: environment(ctx.env), cwd: ctx.dir });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  child.stderr.resume();
  await new Promise((resolve) => child.on("close", resolve));
  return output;
}

// biome-ignore lint/style/noDefaultExport: the harness takes an adapter's default export
export default {
  name: "Pugmark",
  caps: { restart: true, health: true, logs: true, status: true },
  version: async (ctx) => (await pugmark(ctx, "--version")).trim(),
  write(ctx) {
    const services = Object.fromEntries(ctx.services.map((one) => [one.name, definitionOf(one)]));
    writeFileSync(file(ctx), JSON.stringify({ services }, null, 2));
  },
  async start(ctx) {
    const output = openSync(join(ctx.dir, "supervisor.out"), "a");
    const options = {
      env: environment(ctx.env),
      cwd: ctx.dir,
      detached: true,
      stdio: ["ignore", output, output],
    };
    spawn(ctx.node, [main, "up", "--quiet", "-f", file(ctx)], options).unref();
  },
  stop: (ctx) => pugmark(ctx, "down", "-f", file(ctx)),
  mainPid: (ctx) => JSON.parse(readFileSync(join(home(ctx), "manager.json"), "utf8")).pid,
  logFiles(ctx, name) {
    const folder = join(home(ctx), "logs");
    const names = readdirSync(folder).filter(
      (one) => one === `${name}.log` || one.startsWith(`${name}.log.`),
    );
    return names.map((one) => join(folder, one));
  },
  async status(ctx) {
    const { services } = JSON.parse(await pugmark(ctx, "status", "--json", "-f", file(ctx)));
    return services.map(({ name, state, pid, restarts }) => ({ name, state, pid, restarts }));
  },
  restartOne: (ctx, name) => pugmark(ctx, "restart", name, "-f", file(ctx)),
};

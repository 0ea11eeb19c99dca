// The least that a supervisor in Node can be: starts, starts again at once, writes output to files, stops.
import { spawn } from "node:child_process";
import { openSync, readFileSync } from "node:fs";

const { folder, services } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const children = new Set();
let isEnding = false;

function start(service) {
  const log = openSync(`${folder}/${service.name}.log`, "a");
  const [program, ...args] = service.command;
  const env = { ...process.env, ...service.env };
  const child = spawn(program, args, { env, stdio: ["ignore", log, log] });
  children.add(child);
  child.on("exit", () => {
    children.delete(child);
    if (!isEnding) start(service);
    else if (children.size === 0) process.exit(0);
  });
}

for (const service of services) start(service);
process.on("SIGTERM", () => {
  isEnding = true;
  for (const child of children) child.kill("SIGTERM");
  setTimeout(() => {
    for (const child of children) child.kill("SIGKILL");
  }, 3000);
});

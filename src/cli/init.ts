import { mkdir, writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { projectRoot } from "../config/config.ts";
import { systemCodeOf } from "../process-manager/process-manager-error.ts";
import { fail } from "./failure.ts";

/** `pugmark init`: writes an example of a services file that can be started as it is; never over one that is there. Exit code 2 where its name says that it is no YAML. */
export async function init(name: string): Promise<number> {
  if (!/\.ya?ml$/.test(name))
    return fail([`the example is YAML: its name ends in .yaml or .yml, not ${name}`], 2);
  const path = resolve(name);
  const schema = pathToFileURL(resolve(projectRoot, "schema", "services.schema.json")).href;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, example(schema), { flag: "wx" });
  } catch (error) {
    if (systemCodeOf(error) !== "EEXIST") throw error;
    return fail([`${path} is there already, and stays as it is`], 1);
  }
  const shown = relative(".", path);
  console.log(`${shown} is written. Put your commands into it, then: pugmark up -f ${shown}`);
  return 0;
}

function example(schema: string): string {
  return `# yaml-language-server: $schema=${schema}
#
# pugmark up -f FILE        start all of it; Ctrl+C stops it
# pugmark apply -f FILE     after a change: restart only what it concerns
#
# Paths are relative to this file's folder, times are milliseconds.

# Variables of every service; each can have its own. Numbers in quotes.
env:
  STAGE: development

# Files of NAME=value lines. With a ? at its end, one may be missing.
envFiles: [.env?]

services:
  # A task runs to its end. Others can wait for that.
  prepare:
    kind: task
    command: echo "made what the others need for $STAGE"

  web:
    # One line for the shell, or a list of program and arguments: [node, server.js]
    command: while true; do sleep 1; done
    dependsOn: [prepare]
    # Restarted when one of these changes:
    # watch: { paths: [src], ignore: ["**/*.test.js"] }
    # The port that it finds in PORT. With hold, the manager keeps the socket open across restarts and crashes;
    # the program then listens on descriptor 3 (LISTEN_FDS, as under systemd):
    # listen: { port: 8080, hold: true }
    # Ready when this passes; without it, as soon as it runs:
    # readiness: { kind: http, url: /healthz }
    # Killed and started again when this fails three times:
    # liveness: { kind: http, url: /healthz, periodMs: 1000 }

  worker:
    command: while true; do sleep 1; done
    dependsOn: { web: started }
    restart: { policy: on-failure }
    stop: { timeoutMs: 10000 }
    # Three of them, each with its number in REPLICA:
    # replicas: 3

  # Once a night, at three:
  # backup: { kind: task, command: ./backup.sh, schedule: "0 3 * * *" }

  # Run by others, and only watched:
  # redis: { kind: external, probe: { kind: tcp, port: 6379 } }
`;
}

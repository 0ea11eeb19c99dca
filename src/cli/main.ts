import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { ConfigError, describeConfig, type LoadedConfig, loadConfig, projectRoot } from "../config/config.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import { completionScript, namesCommand, ownServices, type Shell, shells } from "./completion.ts";
import { fail } from "./failure.ts";
import type { LogsOptions } from "./logs.ts";
import { printTable } from "./table.ts";
import { parseTime } from "./time-argument.ts";

const serviceNames = ownServices.join(", ");

/** The whole command line. Commands load what they need when they run, so that each starts quickly. */
function program(): Command {
  const pugmark = new Command("pugmark")
    .description("A private, local-first tracking station: positions in, answers out.")
    .version(version(), "-V, --version", "the version, and the Node it runs on")
    .showHelpAfterError("(add --help for the usage, with examples)")
    .showSuggestionAfterError()
    .exitOverride();

  pugmark
    .command("up")
    .description("start the station and stay in the foreground; Ctrl+C stops it, twice forces")
    .argument("[name...]", `services to start, with what they depend on: ${serviceNames}`)
    .addHelpText("after", examples("pugmark up", "pugmark up api agent", "API_PORT=9080 pugmark up"))
    .action(async (names: string[]) => {
      const { up } = await import("./up.ts");
      process.exitCode = await up(settings().config, names, process.env);
    });

  pugmark
    .command("status")
    .description("every service: state, since when, why, restarts, pid, CPU, memory, ports")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark status", "pugmark status --json | jq '.services[].state'"))
    .action(async ({ json }: { json?: boolean }) => {
      const { status } = await import("./control.ts");
      process.exitCode = await status(settings().config, json === true);
    });

  pugmark
    .command("why")
    .description("why a service is down: how it ended, its last lines, what changed, what comes next")
    .argument("<name>", `a service: ${serviceNames}`)
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark why api", "pugmark why chat --json"))
    .action(async (name: string, { json }: { json?: boolean }) => {
      const { why } = await import("./why.ts");
      process.exitCode = await why(settings().config, name, json === true);
    });

  pugmark
    .command("top")
    .description("the services and their logs on a live screen, with keys to restart, stop, start and filter")
    .addHelpText("after", examples("pugmark top"))
    .action(async () => {
      const { top } = await import("./top/top.ts");
      // Not waited for: a restart that was asked for goes on in the station.
      process.exit(await top(settings().config));
    });

  pugmark
    .command("logs")
    .description("what the services printed, the newest last; also when no station runs")
    .argument("[name...]", `services, or manager for what it did (default: every service): ${serviceNames}`)
    .option("-f, --follow", "go on as lines come")
    .option("-n, --lines <count>", "the last lines of each, or the last matches (default: 100)", count)
    .option("--since <time>", "only what came since then: 10m, 2h, 3d, 2026-11-22T10:00:00Z", time)
    .addOption(new Option("--until <time>", "only what came until then").argParser(time).conflicts("follow"))
    .option("--grep <pattern>", "only lines that match this JavaScript regular expression", pattern)
    .option("-t, --timestamps", "when each line came, in local time")
    .option("--json", "a JSON object for each line")
    .addHelpText(
      "after",
      examples(
        "pugmark logs",
        "pugmark logs api chat -f",
        "pugmark logs --since 10m --grep 'error|warn' -t",
        "pugmark logs manager -n 1000 --json",
      ),
    )
    .action(async (names: string[], options: LogsOptions) => {
      const { logs } = await import("./logs.ts");
      process.exitCode = await logs(settings().config, names, options);
    });

  pugmark
    .command("events")
    .description("every service as it is, then each change as it comes")
    .option("--json", "a JSON object for each line")
    .addHelpText(
      "after",
      examples("pugmark events", "pugmark events --json | jq 'select(.to == \"failed\")'"),
    )
    .action(async ({ json }: { json?: boolean }) => {
      const { events } = await import("./control.ts");
      process.exitCode = await events(settings().config, json === true);
    });

  pugmark
    .command("metrics")
    .description("all that is measured of the services and their manager, in Prometheus' text format")
    .addHelpText("after", examples("pugmark metrics", "pugmark metrics | grep resident"))
    .action(async () => {
      const { metrics } = await import("./control.ts");
      process.exitCode = await metrics(settings().config);
    });

  for (const [verb, description] of [
    ["start", "start services that are stopped or have failed"],
    ["restart", "replace services by new processes; no request fails"],
    ["stop", "stop services; without a name, all of them"],
  ] as const) {
    pugmark
      .command(verb)
      .description(description)
      .argument(verb === "stop" ? "[name...]" : "<name...>", `services: ${serviceNames}`)
      .addHelpText("after", examples(`pugmark ${verb} api`, `pugmark ${verb} chat agent`))
      .action(async (names: string[]) => {
        const { change } = await import("./control.ts");
        process.exitCode = await change(settings().config, verb, names);
      });
  }

  pugmark
    .command("down")
    .description("stop the whole station and wait until nothing of it runs")
    .addHelpText("after", examples("pugmark down"))
    .action(async () => {
      const { down } = await import("./control.ts");
      process.exitCode = await down(settings().config);
    });

  pugmark
    .command("doctor")
    .description("check every prerequisite, with the remedy beside it")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark doctor", "pugmark doctor --json"))
    .action(async ({ json }: { json?: boolean }) => {
      const { doctor } = await import("./doctor.ts");
      process.exitCode = await doctor(json === true);
    });

  pugmark
    .command("config")
    .description("the settings in effect and where each comes from; secrets are masked")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark config", "CACHE_TTL=0 pugmark config"))
    .action(({ json }: { json?: boolean }) => {
      const rows = describeConfig(settings());
      if (json) console.log(JSON.stringify(rows, null, 2));
      else
        printTable(
          ["variable", "value", "from"],
          rows.map(({ name, value, source }) => [name, value ?? "", source]),
        );
    });

  pugmark
    .command("import")
    .description("read a track file of any size into the station: Movebank CSV or GPX")
    .argument("<file>", "the file")
    .option("--device <key>", "device that a GPX file comes from (default: the file's name)")
    .option("--subject <name>", "subject that it was on (default: as the device)")
    .addOption(
      new Option("--format <format>", "format, where the file's ending does not say").choices([
        "movebank",
        "gpx",
      ]),
    )
    .option("--json", "the summary as JSON, with every rejected line")
    .addHelpText(
      "after",
      examples(
        "pugmark import movebank-export.csv",
        "pugmark import walk.gpx --device watch-7 --subject Team-2",
      ),
    )
    .action(
      async (
        file: string,
        options: { device?: string; subject?: string; format?: "movebank" | "gpx"; json?: boolean },
      ) => {
        const { importCommand } = await import("./import.ts");
        process.exitCode = await importCommand(settings().config, file, options);
      },
    );

  pugmark
    .command("ask")
    .description("ask the agent a question about the data")
    .argument("<question...>", "the question")
    .option("--json", "the whole answer as JSON")
    .addHelpText("after", examples('pugmark ask "How far did 5515867 travel in May 2019?"'))
    .action(async (words: string[], { json }: { json?: boolean }) => {
      const { askCommand } = await import("./ask.ts");
      process.exitCode = await askCommand(settings().config, words.join(" "), json === true);
    });

  pugmark
    .command("completion")
    .description("a completion script for your shell")
    .argument("<shell>", shells.join(", "), oneOfShells)
    .addHelpText("after", examples('eval "$(pugmark completion bash)"', "pugmark completion fish | source"))
    .action((shell: Shell) => console.log(completionScript(shell, pugmark)));

  pugmark.command(namesCommand, { hidden: true }).action(async () => {
    const { completableServices } = await import("./control.ts");
    console.log((await completableServices(settings().config)).join("\n"));
  });

  return pugmark;
}

/** The settings; wrong ones end the program with a line each and exit code 2. */
function settings(): LoadedConfig {
  return loadConfig();
}

function version(): string {
  const description = readFileSync(join(projectRoot, "package.json"), "utf8");
  return `${(JSON.parse(description) as { version: string }).version} (Node ${process.versions.node})`;
}

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}`;
}

function count(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError("A number of lines is needed.");
  return Number(text);
}

function time(text: string): number {
  const parsed = parseTime(text, Date.now());
  if (parsed === null)
    throw new InvalidArgumentError(
      "How long ago (30s, 10m, 2h, 3d) or a time (2026-11-22T10:00:00Z) is needed.",
    );
  return parsed;
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}

function oneOfShells(text: string): Shell {
  const shell = shells.find((known) => known === text);
  if (!shell) throw new InvalidArgumentError(`One of ${shells.join(", ")} is needed.`);
  return shell;
}

/** What the machine or its files are to blame for says so in its message; a stack would only hide that. */
function isForPeople(error: unknown): error is Error {
  return error instanceof Error && ("syscall" in error || ("fatal" in error && error.fatal === true));
}

try {
  await program().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof ConfigError) process.exitCode = fail(error.lines, 2);
  else if (error instanceof ProcessManagerError || isForPeople(error))
    process.exitCode = fail([error.message], 1);
  else throw error;
}

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { ConfigError, describeConfig, type LoadedConfig, loadConfig, projectRoot } from "../config/config.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import type { Replicas } from "./apply.ts";
import type { BatchOptions } from "./batch.ts";
import type { ChatOptions } from "./chat.ts";
import { completionScript, namesCommand, ownServices, type Shell, shells } from "./completion.ts";
import type { ExportTarget } from "./export.ts";
import { exitCodes, fail } from "./failure.ts";
import type { HistoryFilter, HistoryOptions } from "./history.ts";
import { outliveReaders } from "./leaving.ts";
import type { LogsOptions } from "./logs.ts";
import { findPlace, type Place } from "./place.ts";
import type { SetupOptions } from "./supabase-setup.ts";
import { printTable } from "./table.ts";
import { parseTime } from "./time-argument.ts";

const serviceNames = ownServices.join(", ");

/** The services file that the command line names. */
let file: string | undefined;
const fileMeaning = "a services file (TypeScript, JSON, YAML, Procfile) instead of the tracking station";

/** What only the tracking station has. */
const ofTheStation = new Set([
  "doctor",
  "config",
  "import",
  "ask",
  "batch",
  "cache",
  "chat",
  "sessions",
  "history",
  "supabase",
  "sync",
  "functions",
  "init",
  "completion",
]);

/** The whole command line. Commands load what they need when they run, so that each starts quickly. */
function program(): Command {
  const pugmark = new Command("pugmark")
    .description("A private, local-first tracking station: positions in, answers out.")
    .version(version(), "-V, --version", "the version, and the Node it runs on")
    .showHelpAfterError("(add --help for the usage, with examples)")
    .showSuggestionAfterError()
    .enablePositionalOptions() // before the verb, `-f` is the file's; after it, the verb's
    .option("-f, --file <file>", fileMeaning)
    .hook("preAction", (_program, command) => {
      ({ file } = command.optsWithGlobals<{ file?: string }>());
    })
    .exitOverride();

  pugmark
    .command("up")
    .description("start the station and stay in the foreground; Ctrl+C stops it, twice forces")
    .argument("[name...]", `services to start, with what they depend on: ${serviceNames}`)
    .addHelpText(
      "after",
      examples(
        "pugmark up",
        "pugmark up api agent",
        "pugmark up -f pugmark.yaml",
        "pugmark up -f pugmark.yaml --wait --timeout 30",
        "pugmark up -f ci.yaml --exit-on tests",
      ),
    )
    .option("-q, --quiet", "show no output of the services; it is in their logs")
    .option("-d, --detach", "go on in the background; `attach`, `status` and `down` find it")
    .addOption(
      new Option("--wait", "return when all is ready (0), or stopped again (1)").implies({ detach: true }),
    )
    .addOption(
      new Option("--timeout <seconds>", "with --wait: no longer than this (124)")
        .argParser(secondsOf)
        .implies({ detach: true, wait: true }),
    )
    .addOption(
      new Option(
        "--exit-on <name>",
        "stop everything when it ends, and exit as it did; NAME=success or NAME=failure for only that",
      ).conflicts(["detach", "wait"]),
    )
    .addOption(new Option("--background").hideHelp())
    .action(async (names: string[], options: UpFlags) => {
      // Without a file it is the tracking station, whatever else has run in this folder.
      const chosen = file === undefined ? { ...settings().config, file: null } : place();
      const { whatRuns } = await import("./what-runs.ts");
      const what = await whatRuns(chosen, process.env);
      const { detach, wait = false, timeout: timeoutS, quiet = false, exitOn, background } = options;
      if (detach) {
        const { upInBackground } = await import("./background.ts");
        process.exitCode = await upInBackground(what, chosen, { names, wait, timeoutS });
        return;
      }
      const { up } = await import("./up.ts");
      process.exitCode = await up(what, {
        names,
        quiet,
        ...(exitOn === undefined ? {} : { exitOn: (await import("./exit-on.ts")).parseExitOn(exitOn) }),
        ...(background ? { report: (await import("./background.ts")).reportToParent } : {}),
      });
    });

  pugmark
    .command("attach")
    .description("the live view of a station that runs; Ctrl+C leaves it running")
    .addHelpText("after", examples("pugmark attach", "pugmark attach -f pugmark.yaml"))
    .action(async () => {
      const { attach } = await import("./attach.ts");
      process.exitCode = await attach(place());
    });

  pugmark
    .command("status")
    .description("every service: state, since when, why, restarts, pid, CPU, memory, ports")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark status", "pugmark status --json | jq '.services[].state'"))
    .action(async ({ json }: { json?: boolean }) => {
      const { status } = await import("./control.ts");
      process.exitCode = await status(place(), json === true);
    });

  pugmark
    .command("why")
    .description("why a service is down: how it ended, its last lines, what changed, what comes next")
    .argument("<name>", `a service: ${serviceNames}`)
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark why api", "pugmark why chat --json"))
    .action(async (name: string, { json }: { json?: boolean }) => {
      const { why } = await import("./why.ts");
      process.exitCode = await why(place(), name, json === true);
    });

  pugmark
    .command("top")
    .description("the services and their logs on a live screen, with keys to restart, stop, start and filter")
    .addHelpText("after", examples("pugmark top"))
    .action(async () => {
      const { top } = await import("./top/top.ts");
      // Not waited for: a restart that was asked for goes on in the station.
      process.exit(await top(place()));
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
      process.exitCode = await logs(place(), names, options);
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
      process.exitCode = await events(place(), json === true);
    });

  pugmark
    .command("metrics")
    .description("all that is measured of the services and their manager, in Prometheus' text format")
    .addHelpText("after", examples("pugmark metrics", "pugmark metrics | grep resident"))
    .action(async () => {
      const { metrics } = await import("./control.ts");
      process.exitCode = await metrics(place());
    });

  pugmark
    .command("restart")
    .description("replace services by new processes, without a gap where that can be; replicas take turns")
    .argument("<name...>", `services: ${serviceNames}`)
    .option("--rolling", "refuse where there would be a gap")
    .addHelpText("after", examples("pugmark restart api", "pugmark restart --rolling api agent"))
    .action(async (names: string[], { rolling = false }: { rolling?: boolean }) => {
      const { change } = await import("./control.ts");
      process.exitCode = await change(place(), "restart", names, rolling);
    });

  for (const [verb, description] of [
    ["start", "start services that are stopped or have failed"],
    ["stop", "stop services; without a name, all of them"],
  ] as const) {
    pugmark
      .command(verb)
      .description(description)
      .argument(verb === "stop" ? "[name...]" : "<name...>", `services: ${serviceNames}`)
      .addHelpText("after", examples(`pugmark ${verb} api`, `pugmark ${verb} chat agent`))
      .action(async (names: string[]) => {
        const { change } = await import("./control.ts");
        process.exitCode = await change(place(), verb, names);
      });
  }

  pugmark
    .command("plan")
    .description("what apply would do: what is written now beside what runs")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark plan", "pugmark plan -f pugmark.yaml --json"))
    .action(async ({ json }: { json?: boolean }) => {
      const { plan } = await import("./apply.ts");
      process.exitCode = await plan(place(), json === true);
    });

  pugmark
    .command("apply")
    .description(
      "make what runs what is written now: restart only what changed, start what is new, end what is gone",
    )
    .option("--dry-run", "only say what would be done, as plan does")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark apply", "pugmark apply --dry-run"))
    .action(async ({ dryRun, json }: { dryRun?: boolean; json?: boolean }) => {
      const { apply, plan } = await import("./apply.ts");
      process.exitCode = await (dryRun ? plan : apply)(place(), json === true);
    });

  pugmark
    .command("scale")
    .description("run this many of a service that has replicas, until the next apply")
    .argument("<name=count...>", "services and how many of each", replicasOf)
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark scale worker=3"))
    .action(async (wanted: Replicas[], { json }: { json?: boolean }) => {
      const { scale } = await import("./apply.ts");
      process.exitCode = await scale(place(), wanted, json === true);
    });

  pugmark
    .command("init")
    .description("write a commented example of a services file")
    .argument("[file]", "its name", "pugmark.yaml")
    .addHelpText("after", examples("pugmark init", "pugmark init services/dev.yaml"))
    .action(async (path: string) => {
      const { init } = await import("./init.ts");
      process.exitCode = await init(path);
    });

  pugmark
    .command("down")
    .description("stop the whole station and wait until nothing of it runs")
    .addHelpText("after", examples("pugmark down"))
    .action(async () => {
      const { down } = await import("./control.ts");
      process.exitCode = await down(place());
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

  const cache = pugmark
    .command("cache")
    .description("the answers that the chat server keeps, by model")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark cache", "pugmark cache --json | jq .hits", "pugmark cache clear"))
    .action(async ({ json }: { json?: boolean }) => {
      const { showCache } = await import("./cache.ts");
      process.exitCode = await showCache(settings().config, json === true);
    });
  cache
    .command("clear")
    .description("forget answers, of every caller; without an option, all of them")
    .option("--model <name>", "only those of this model", wordOf)
    .option("--prefix <text>", "only those whose keys (endpoint/model/hash) begin so", wordOf)
    .option("--json", "how many, as JSON")
    .addHelpText(
      "after",
      examples(
        "pugmark cache clear",
        "pugmark cache clear --model deepseek-r1-distill-qwen-7b",
        "pugmark cache clear --prefix embeddings/",
      ),
    )
    .action(async ({ json, ...forgotten }: { model?: string; prefix?: string; json?: boolean }) => {
      const { clearCache } = await import("./cache.ts");
      process.exitCode = await clearCache(settings().config, forgotten, json === true);
    });

  const batch = pugmark
    .command("batch")
    .description("have the model answer every line of a file, behind everybody who waits for an answer")
    .argument("[file]", "a question on each line, objects with a `prompt`, or OpenAI's batch lines")
    .option("-o, --output <file>", "where the answers go; - is standard output (default: NAME.answers.jsonl)")
    .option("--model <name>", "the model to ask (default: DEEPSEEK_MODEL)")
    .option("--system <text>", "instructions for the model, with every question")
    .option("--endpoint <path>", "which endpoint answers (default: /v1/chat/completions)")
    .option("--window <time>", "how long it may take: 30m, 24h, 7d, up to 30d (default: 24h)", batchWindow)
    .addOption(
      new Option("--resume <id>", "watch this batch, and write its answers").conflicts([
        "model",
        "system",
        "endpoint",
        "window",
        "again",
      ]),
    )
    .option("--again", "ask anew what was asked before")
    .option("--json", "each change as a line of JSON")
    .enablePositionalOptions() // `batch list --json` is the list's
    .addHelpText(
      "after",
      examples(
        "pugmark batch questions.txt",
        'pugmark batch notes.jsonl -o triage.jsonl --system "Answer with one word."',
        "pugmark batch --resume batch_01a2…",
        "pugmark batch list",
      ),
    )
    .action(async (path: string | undefined, options: BatchOptions) => {
      const { batchCommand } = await import("./batch.ts");
      process.exitCode = await batchCommand(settings().config, path, options);
    });
  batch
    .command("list")
    .description("your newest batches")
    .option("--json", "the same as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const { listCommand } = await import("./batch.ts");
      process.exitCode = await listCommand(settings().config, json === true);
    });
  for (const [verb, description] of [
    ["status", "how far a batch is"],
    ["cancel", "end a batch; what is answered so far is kept"],
  ] as const) {
    batch
      .command(verb)
      .description(description)
      .argument("<id>", "its id")
      .option("--json", "the same as JSON")
      .action(async (id: string, { json }: { json?: boolean }) => {
        const commands = await import("./batch.ts");
        const run = verb === "status" ? commands.statusCommand : commands.cancelCommand;
        process.exitCode = await run(settings().config, id, json === true);
      });
  }

  pugmark
    .command("chat")
    .description("talk to the model; with a question, one answer; Ctrl+C stops an answer")
    .argument("[question...]", "the question; without one a conversation, or what is piped in")
    .option("-s, --session <name>", "go on with this conversation, or begin it", sessionName)
    .option("-m, --model <name>", "another model than DEEPSEEK_MODEL")
    .option("--system <text>", "instructions for the model")
    .option("--json", "the whole answer as JSON")
    .option("--no-stream", "print the answer once it is whole")
    .option("--no-reasoning", "hide the model's thinking")
    .addHelpText(
      "after",
      examples(
        "pugmark chat",
        'pugmark chat "What is a pugmark?"',
        'pugmark chat --session trip "Where were we?"',
        "pugmark chat --json < question.txt | jq -r .response",
      ),
    )
    .action(async (words: string[], options: ChatOptions) => {
      const { chatCommand } = await import("./chat.ts");
      process.exitCode = await chatCommand(settings().config, words.join(" ") || undefined, options);
    });

  const sessions = pugmark
    .command("sessions")
    .description("the conversations with the model: list, show, delete")
    .option("-n, --limit <count>", "how many to list, the last used first (default: 20)", sessionCount)
    .option("--json", "the same as JSON")
    .addHelpText(
      "after",
      examples("pugmark sessions", "pugmark sessions show trip", "pugmark sessions delete trip"),
    )
    .action(async ({ limit = 20, json }: { limit?: number; json?: boolean }) => {
      const { listSessions } = await import("./sessions.ts");
      process.exitCode = await listSessions(settings().config, limit, json === true);
    });
  sessions
    .command("show")
    .description("the turns of a conversation")
    .argument("<id>", "its name", sessionName)
    .option("--json", "the same as JSON")
    .action(async (id: string, { json }: { json?: boolean }) => {
      const { showSession } = await import("./sessions.ts");
      process.exitCode = await showSession(settings().config, id, json === true);
    });
  sessions
    .command("delete")
    .description("remove conversations with everything that was said in them")
    .argument("<id...>", "their names")
    .action(async (ids: string[]) => {
      const { deleteSessions } = await import("./sessions.ts");
      process.exitCode = await deleteSessions(settings().config, ids);
    });

  const history = filtered(
    pugmark.command("history").description("past calls of the model, the newest first; search, take along"),
  )
    .option("-n, --limit <count>", "how many to list (default: 20)", sessionCount)
    .option("--json", "the same as JSON")
    .addHelpText(
      "after",
      examples(
        "pugmark history",
        "pugmark history --q 'roost -camp' --since 7d",
        "pugmark history export calls.jsonl",
        "pugmark history export - --session trip | jq -r .response",
        "pugmark history --station all",
      ),
    )
    .action(async (options: HistoryOptions) => {
      const { historyCommand } = await import("./history.ts");
      process.exitCode = await historyCommand(settings().config, options);
    });
  filtered(
    history
      .command("export")
      .description("all of them, whole, as JSON Lines")
      .argument("<file>", "where to; - is standard output"),
  ).action(async (target: string, filter: HistoryFilter) => {
    const { exportHistory } = await import("./history.ts");
    process.exitCode = await exportHistory(settings().config, target, filter);
  });

  const supabase = pugmark
    .command("supabase")
    .description("the Supabase project behind the station")
    .addHelpText("after", examples("pugmark supabase setup", "pugmark supabase device-key add collar-7"));
  supabase
    .command("setup")
    .description("what the project has and lacks of what a station needs, with the remedy beside it")
    .addOption(new Option("--apply", "bring the project's schema up to date first").conflicts("sql"))
    .option(
      "--database-url <url>",
      "with --apply: the project's Postgres. Others on this machine see it while it runs; without it, it is asked for",
    )
    .option("--sql", "print the migrations that the project lacks, for the dashboard's SQL editor")
    .option("--json", "the same as JSON")
    .addHelpText(
      "after",
      examples(
        "pugmark supabase setup",
        "pugmark supabase setup --apply",
        "pugmark supabase setup --apply < connection-string.txt",
        "pugmark supabase setup --sql > schema.sql",
      ),
    )
    .action(async (options: SetupOptions) => {
      const { setupCommand } = await import("./supabase-setup.ts");
      process.exitCode = await setupCommand(settings().config, options);
    });

  const deviceKey = supabase
    .command("device-key")
    .description("the keys with which devices leave positions in the project's inbox")
    .addHelpText(
      "after",
      examples("pugmark supabase device-key add collar-7", "pugmark supabase device-key list"),
    );
  deviceKey
    .command("add")
    .description("make a key and print it, this once")
    .argument("<device>", "the device that it may report for; '*' for any")
    .option("--json", "the same as JSON")
    .addHelpText(
      "after",
      examples("pugmark supabase device-key add collar-7", "pugmark supabase device-key add '*'"),
    )
    .action(async (device: string, { json }: { json?: boolean }) => {
      const { addDeviceKey } = await import("./device-keys.ts");
      process.exitCode = await addDeviceKey(settings().config, device, json === true);
    });
  deviceKey
    .command("list")
    .description("the keys there are, the newest first; not what they are")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark supabase device-key list"))
    .action(async ({ json }: { json?: boolean }) => {
      const { listDeviceKeys } = await import("./device-keys.ts");
      process.exitCode = await listDeviceKeys(settings().config, json === true);
    });
  deviceKey
    .command("revoke")
    .description("make a key worthless")
    .argument("<id>", "its id, as in the list")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark supabase device-key revoke 018f5f3e-2b6f-7c1e-8a50-3d3a9f6c2b10"))
    .action(async (id: string, { json }: { json?: boolean }) => {
      const { revokeDeviceKey } = await import("./device-keys.ts");
      process.exitCode = await revokeDeviceKey(settings().config, id, json === true);
    });

  const sync = pugmark
    .command("sync")
    .description("the mirror to the Supabase project: status, push, pull, retry")
    .addHelpText(
      "after",
      examples("pugmark sync status", "pugmark sync push --all", "pugmark sync pull --all"),
    );
  sync
    .command("status")
    .description("what waits, since when, what was set aside and why, what is wrong")
    .option("--json", "the same as JSON")
    .addHelpText("after", examples("pugmark sync status", "pugmark sync status --json | jq .lag_seconds"))
    .action(async ({ json }: { json?: boolean }) => {
      const { syncStatus } = await import("./sync-status.ts");
      process.exitCode = await syncStatus(settings().config, json === true);
    });
  sync
    .command("push")
    .description("send what waits now; Ctrl+C leaves it going on")
    .option("--all", "everything that this station has, and compare; goes on where it was")
    .option("--json", "the result as JSON")
    .addHelpText("after", examples("pugmark sync push", "pugmark sync push --all"))
    .action(async ({ all, json }: { all?: boolean; json?: boolean }) => {
      const { syncPush } = await import("./sync-push.ts");
      process.exitCode = await syncPush(settings().config, all === true, json === true);
    });
  sync
    .command("pull")
    .description("fetch what other stations changed now; Ctrl+C leaves it going on")
    .option("--all", "everything that the project has, and compare; goes on where it was")
    .option("--json", "the result as JSON")
    .addHelpText("after", examples("pugmark sync pull", "pugmark sync pull --all"))
    .action(async ({ all, json }: { all?: boolean; json?: boolean }) => {
      const { syncPull } = await import("./sync-pull.ts");
      process.exitCode = await syncPull(settings().config, all === true, json === true);
    });
  sync
    .command("retry")
    .description("send and fetch once more the rows that one side refused")
    .option("--json", "the result as JSON")
    .addHelpText("after", examples("pugmark sync retry"))
    .action(async ({ json }: { json?: boolean }) => {
      const { syncRetry } = await import("./sync-push.ts");
      process.exitCode = await syncRetry(settings().config, json === true);
    });

  const functions = pugmark
    .command("functions")
    .description("the edge functions in supabase/functions: serve them here, deploy them to the project")
    .addHelpText("after", examples("pugmark functions serve", "pugmark functions deploy ingest"));
  functions
    .command("serve")
    .description("run them on this machine under Deno; Ctrl+C stops it")
    .addOption(
      new Option("--port <port>", "TCP port (default: FUNCTIONS_PORT, else 54321)").argParser(portOf),
    )
    .addHelpText("after", examples("pugmark functions serve", "pugmark functions serve --port 9000"))
    .action(async ({ port }: { port?: number }) => {
      const { serveFunctions } = await import("./functions.ts");
      process.exitCode = await serveFunctions(settings().config, process.env, port);
    });
  functions
    .command("deploy")
    .description("bring them to the project by the Supabase CLI; without a name, all of them")
    .argument("[name...]", "their folders")
    .option("--project-ref <ref>", "the project (default: that of SUPABASE_URL)")
    .addHelpText("after", examples("pugmark functions deploy", "pugmark functions deploy ingest"))
    .action(async (names: string[], { projectRef }: { projectRef?: string }) => {
      const { deployFunctions } = await import("./functions.ts");
      process.exitCode = await deployFunctions(settings().config, process.env, { names, projectRef });
    });

  pugmark
    .command("export")
    .description("the services as files of another supervisor; what it cannot do is listed")
    .addArgument(
      new Argument("<target>", "the other supervisor").choices(["systemd", "compose", "kubernetes"]),
    )
    .option("--user", "systemd: for your own manager (systemctl --user), not the system's")
    .option("--each", "systemd: a unit for each service in place of the manager")
    .option("-o, --output <folder>", "write the files there; without it, to standard output")
    .addHelpText(
      "after",
      examples(
        "pugmark export systemd > pugmark.service",
        "pugmark export systemd --user -o ~/.config/systemd/user",
        "pugmark export systemd --each -o units",
        "pugmark export compose -f services.yaml -o .",
        "pugmark export kubernetes -o .",
      ),
    )
    .action(async (target: ExportTarget, options: { user?: boolean; each?: boolean; output?: string }) => {
      const { exportCommand } = await import("./export.ts");
      const chosen = file === undefined ? { ...settings().config, file: null } : place();
      process.exitCode = await exportCommand(chosen, target, options, process.env);
    });

  pugmark
    .command("completion")
    .description("a completion script for your shell")
    .argument("<shell>", shells.join(", "), oneOfShells)
    .addHelpText("after", examples('eval "$(pugmark completion bash)"', "pugmark completion fish | source"))
    .action((shell: Shell) => console.log(completionScript(shell, pugmark)));

  pugmark.command(namesCommand, { hidden: true }).action(async () => {
    const { completableServices } = await import("./control.ts");
    console.log((await completableServices(place())).join("\n"));
  });

  for (const command of pugmark.commands) {
    if (ofTheStation.has(command.name())) continue;
    // `logs -f` follows, as everywhere.
    command.option(command.name() === "logs" ? "--file <file>" : "-f, --file <file>", fileMeaning);
  }
  return pugmark;
}

interface UpFlags {
  readonly quiet?: boolean;
  readonly detach?: boolean;
  readonly wait?: boolean;
  readonly timeout?: number;
  readonly exitOn?: string;
  /** Not for people: the manager that `--detach` starts. */
  readonly background?: boolean;
}

/** The place that the command line means. */
function place(): Place {
  return findPlace(file, process.env);
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

/** An empty word would mean everything. */
function wordOf(text: string): string {
  if (text === "") throw new InvalidArgumentError("It must not be empty.");
  return text;
}

const minutesOf: Readonly<Record<string, number>> = { m: 1, h: 60, d: 1_440 };

/** As the chat server takes it, which would say so only once the questions are uploaded. */
function batchWindow(text: string): string {
  const [, count, unit = ""] = /^([1-9]\d{0,4})([mhd])$/.exec(text) ?? [];
  const minutes = Number(count) * (minutesOf[unit] ?? Number.NaN);
  if (!(minutes <= 30 * 1_440))
    throw new InvalidArgumentError("A time from 1m to 30d is needed: 30m, 24h, 7d.");
  return text;
}

function sessionName(text: string): string {
  if (!/^[\w.:-]{1,128}$/.test(text))
    throw new InvalidArgumentError("A name has letters, digits and . : _ - only, 128 at most.");
  return text;
}

function sessionCount(text: string): number {
  const number = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > 200) throw new InvalidArgumentError("A number from 1 to 200 is needed.");
  return number;
}

/** The options by which past calls are chosen. */
function filtered(command: Command): Command {
  return command
    .option("-q, --q <words>", 'words of question or answer; "as they stand", or, -without')
    .option("-s, --session <name>", "only of this conversation", sessionName)
    .option("-m, --model <name>", "only of this model")
    .option("--station <name>", "of another station that the mirror brought, or all; default: this one")
    .option("--since <time>", "only since then: 10m, 2h, 3d, 2026-11-22T10:00:00Z", time);
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

function replicasOf(text: string, earlier: readonly Replicas[] = []): Replicas[] {
  const [, name = "", replicas] = /^([a-z][a-z0-9-]*)=(\d{1,4})$/.exec(text) ?? [];
  if (replicas === undefined) throw new InvalidArgumentError("A name and a number are needed, as worker=3.");
  return [...earlier, { name, replicas: Number(replicas) }];
}

function portOf(text: string): number {
  const number = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > 65_535) throw new InvalidArgumentError("A port from 1 to 65535 is needed.");
  return number;
}

function secondsOf(text: string): number {
  if (!/^\d{1,6}(\.\d+)?$/.test(text)) throw new InvalidArgumentError("A number of seconds is needed.");
  return Number(text);
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

outliveReaders();
try {
  await program().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof ConfigError) process.exitCode = fail(error.lines, 2);
  else if (error instanceof ProcessManagerError)
    process.exitCode = fail(error.message.split("\n"), exitCodes[error.code] ?? 1);
  else if (isForPeople(error)) process.exitCode = fail([error.message], 1);
  else throw error;
}

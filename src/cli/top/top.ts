import { once } from "node:events";
import { emitKeypressEvents, type Interface } from "node:readline";
import { ControlClient } from "../../process-manager/control-client.ts";
import { messageOf, ProcessManagerError } from "../../process-manager/process-manager-error.ts";
import { runningServices } from "../control.ts";
import { fail } from "../failure.ts";
import { readableLine } from "../log-line.ts";
import type { Place } from "../place.ts";
import { frameOf, pageRowsOf } from "./frame.ts";
import { type Key, TopModel, type Wish } from "./model.ts";
import { Screen } from "./screen.ts";
import { watchStation } from "./station-watch.ts";

/** Lines of the log to begin with. */
const tailLines = 500;

/** An escape that is followed by nothing for this long is the key, not the beginning of an arrow's sequence. */
const escapeCodeTimeout = 100;

/**
 * `pugmark top`: the services and their logs as they change, with keys to act on them, until `q` or a signal. Exit
 * code 2 without a terminal, 3 when no station runs at first; one that ends later is waited for.
 */
export async function top(place: Place): Promise<number> {
  const { stdin: input, stdout: output } = process;
  if (!input.isTTY || !output.isTTY)
    return fail(["top needs a terminal; pugmark status and pugmark logs do not"], 2);
  if (!(await runningServices(place)))
    return fail([`no station runs in ${place.PUGMARK_HOME}; pugmark up starts one`], 3);

  const station = new ControlClient(place.PUGMARK_HOME);
  const model = new TopModel();
  const quit = new AbortController();
  const stop = (): void => quit.abort();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, stop);
  output.on("error", stop);
  input.on("error", stop).once("end", stop);

  using screen = new Screen({ input, output, render: (columns, rows) => frameOf(model, columns, rows) });
  using logs = new LogReader(station, model, screen.refresh);
  emitKeypressEvents(input, { escapeCodeTimeout } as unknown as Interface);
  input.on("keypress", (character: string | undefined, key: { name?: string; ctrl?: boolean }) => {
    const wish = model.press(keyOf(character, key), pageRowsOf(output.rows));
    if (wish?.kind === "quit") stop();
    else if (wish) void fulfil(station, wish, model, screen.refresh);
    logs.follow();
    screen.refresh();
  });
  input.resume();
  const watching = watchStation(
    station,
    {
      onServices: (now) => {
        model.services = now;
        logs.follow();
        screen.refresh();
      },
      onConnect: () => {
        if (model.isAway) model.message = "the station is back";
        model.isAway = false;
        logs.restart();
        screen.refresh();
      },
      onAway: (reason) => {
        model.isAway = true;
        model.message = `${reason}; waiting for it to come back`;
        screen.refresh();
      },
    },
    quit.signal,
  );
  screen.refresh();
  if (!quit.signal.aborted) await once(quit.signal, "abort");
  await watching;
  input.pause();
  return 0;
}

function keyOf(character = "", { name = "", ctrl = false }: { name?: string; ctrl?: boolean }): Key {
  return { name: ctrl ? `ctrl-${name}` : name, character: ctrl ? "" : character };
}

const doing = { start: "starting", stop: "stopping", restart: "restarting" };

async function fulfil(
  station: ControlClient,
  wish: Exclude<Wish, { kind: "quit" }>,
  model: TopModel,
  refresh: () => void,
): Promise<void> {
  model.message = `${doing[wish.kind]} ${wish.service} …`;
  refresh();
  try {
    const { state, reason } = await station[wish.kind](wish.service);
    model.message = `${wish.service}: ${state} (${reason})`;
  } catch (error) {
    model.message = messageOf(error);
  }
  refresh();
}

/** Reads the log of whatever service is selected into the model. */
class LogReader implements Disposable {
  readonly #station: ControlClient;
  readonly #model: TopModel;
  readonly #refresh: () => void;
  #service: string | undefined;
  #reading = new AbortController();

  constructor(station: ControlClient, model: TopModel, refresh: () => void) {
    this.#station = station;
    this.#model = model;
    this.#refresh = refresh;
  }

  /** Turns to the selected service, unless its log is being read. */
  follow(): void {
    const selected = this.#model.selected;
    const service = selected?.kind === "external" ? undefined : selected?.name;
    if (service === this.#service) return;
    this.#service = service;
    this.restart();
  }

  /** Begins anew: the station that was read from has ended. */
  restart(): void {
    this.#reading.abort();
    this.#model.clearLines();
    this.#reading = new AbortController();
    if (this.#service !== undefined) void this.#read(this.#service, this.#reading.signal);
  }

  [Symbol.dispose](): void {
    this.#reading.abort();
  }

  async #read(service: string, signal: AbortSignal): Promise<void> {
    try {
      for await (const { line } of this.#station.logs({ service, tailLines, signal })) {
        if (signal.aborted) return;
        this.#model.addLine(readableLine(line));
        this.#refresh();
      }
    } catch (error) {
      // A station that ends says so itself.
      if (signal.aborted || !(error instanceof ProcessManagerError) || error.code === "not-running") return;
      this.#model.message = error.message;
      this.#refresh();
    }
  }
}

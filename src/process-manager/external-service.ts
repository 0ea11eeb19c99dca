import { setTimeout as delay } from "node:timers/promises";
import type { ProbeContext } from "./exec-probe.ts";
import { askProbe, watchProbe } from "./probe.ts";
import { messageOf } from "./process-manager-error.ts";
import type { ResolvedExternal } from "./resolve-definitions.ts";
import type { ServiceStatus } from "./service-status.ts";

/** Something that others run: only watched. It is `ready`, or `unhealthy` while it is away. */
export class ExternalService {
  readonly #definition: ResolvedExternal;
  readonly #context: ProbeContext;
  readonly #status: ServiceStatus;
  #watch: { readonly stop: AbortController; readonly done: Promise<void> } | null = null;

  constructor(definition: ResolvedExternal, context: ProbeContext, status: ServiceStatus) {
    this.#definition = definition;
    this.#context = context;
    this.#status = status;
  }

  /** Begins to watch, if it does not yet. */
  start(): void {
    if (this.#watch) return;
    const stop = new AbortController();
    const done = this.#observe(stop.signal).catch((error: unknown) => {
      if (!stop.signal.aborted) this.#status.explain(messageOf(error));
    });
    this.#watch = { stop, done };
  }

  async stop(): Promise<void> {
    this.#watch?.stop.abort(new Error("is not watched any more"));
    await this.#watch?.done;
    this.#watch = null;
  }

  async #observe(signal: AbortSignal): Promise<void> {
    const { probe } = this.#definition;
    await this.#untilFirstReady(signal);
    this.#status.move("probe-passed", "answers");
    const onGood = (): boolean => this.#status.move("probe-passed", "answers again");
    const onBad = (reason: string): void => this.#tellAway(reason);
    await watchProbe(probe, this.#context, true, { onGood, onBad }, signal);
  }

  async #untilFirstReady(signal: AbortSignal): Promise<void> {
    const { probe, afterReady } = this.#definition;
    await delay(probe.initialDelayMs ?? 0, undefined, { signal });
    for (;;) {
      try {
        await askProbe(probe, this.#context, signal);
        await afterReady?.(signal);
        return;
      } catch (error) {
        signal.throwIfAborted();
        this.#tellAway(messageOf(error));
      }
      await delay(probe.periodMs ?? 2_000, undefined, { signal });
    }
  }

  #tellAway(reason: string): void {
    if (!this.#status.move("probe-failed", reason)) this.#status.explain(reason);
  }
}

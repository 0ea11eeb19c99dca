import { styleText } from "node:util";
import type { LogLine } from "../process-manager/log-reader.ts";
import type { ServiceEvent, ServiceRecord } from "../process-manager/service-status.ts";
import type { View } from "./live-view.ts";
import { readableLine } from "./log-line.ts";
import { styledName, styledState } from "./state-style.ts";

/** What a running station shows, in front of `up` or of `attach`: its events and output go by, the states stay. */
export class StationScreen {
  readonly #view: View;
  readonly #hint: string;
  readonly #states: Map<string, string>;
  readonly #width: number;

  /** `hint` says what Ctrl+C does. */
  constructor(view: View, services: readonly ServiceRecord[], hint: string) {
    this.#view = view;
    this.#hint = hint;
    this.#states = new Map(services.map(({ name, state }) => [name, state]));
    this.#width = Math.max(...services.map(({ name }) => name.length));
    this.#showStates();
  }

  showEvent({ service, from, to, reason }: ServiceEvent): void {
    if (from !== to) {
      const name = styledName(service, this.#width);
      this.#view.print(`${name} ${styleText("dim", "·")} ${styledState(to)} (${reason})`);
    }
    this.#states.set(service, to);
    this.#showStates();
  }

  /** Resolves when the next line may come. */
  async showLine({ service, line }: LogLine): Promise<void> {
    this.#view.print(`${styledName(service, this.#width)} ${styleText("dim", "|")} ${readableLine(line)}`);
    await this.#view.ready();
  }

  #showStates(): void {
    const states = [...this.#states].map(([name, state]) => `${name} ${styledState(state)}`);
    this.#view.setFoot(["", states.join("  "), styleText("dim", this.#hint)]);
  }
}

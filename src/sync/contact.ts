import { Pace } from "./pace.ts";
import type { Project, Reply } from "./project.ts";
import { troubleOf } from "./trouble.ts";
import { verdictOf } from "./verdict.ts";

export interface ContactParts {
  readonly project: Pick<Project, "quietMs">;
  /** Told when nothing gets through, with the reason, and when something does again, with null. */
  readonly onTrouble: (reason: string | null) => Promise<void>;
}

/** Whether anything gets through to the project, and when to try again where nothing does. */
export class Contact {
  readonly #parts: ContactParts;
  /** Away or busy; and what only a person can mend, which is asked after less often. */
  readonly #pace: Pace;
  readonly #alarmPace = new Pace({ firstMs: 1_000, mostMs: 60_000 });
  #isTroubled = false;
  #failures = 0;

  /** `firstMs`: how long it is left alone after a first failure. */
  constructor(parts: ContactParts, firstMs: number) {
    this.#parts = parts;
    this.#pace = new Pace({ firstMs, mostMs: 15_000 });
  }

  /** Epoch milliseconds of the next try where nothing gets through; 0 where it does. */
  get nextTryAt(): number {
    return Math.max(this.#pace.nextTryAt, this.#alarmPace.nextTryAt);
  }

  /** How often nothing got through, since ever. */
  get failures(): number {
    return this.#failures;
  }

  /** Ends the waiting now. */
  hurry(): void {
    this.#pace.hurry();
    this.#alarmPace.hurry();
  }

  /** Resolves when it is time to try. Throws the reason of the signal. */
  async wait(signal: AbortSignal): Promise<void> {
    await this.#pace.wait(signal);
    await this.#alarmPace.wait(signal);
  }

  /** This answer means that nothing gets through. */
  async failed(reply: Reply<unknown>): Promise<void> {
    const pace = verdictOf(reply) === "alarm" ? this.#alarmPace : this.#pace;
    pace.failed(this.#parts.project.quietMs);
    this.#isTroubled = true;
    this.#failures += 1;
    await this.#parts.onTrouble(troubleOf(reply));
  }

  async gotThrough(): Promise<void> {
    this.#pace.succeeded();
    this.#alarmPace.succeeded();
    if (!this.#isTroubled) return;
    this.#isTroubled = false;
    await this.#parts.onTrouble(null);
  }
}

import { ChatError } from "../chat-error.ts";

export interface PatienceOptions {
  /** Silence that is too long: to connect, between two tokens, and of the server itself at any time. */
  readonly silenceMs: number;
  readonly firstTokenMs: number;
  readonly loadMs: number;
}

/**
 * Notices when LM Studio has gone quiet. Until the first token it looks every now and then whether LM Studio is
 * still there and whether the model is loaded, since loading and reading a long prompt look the same from
 * outside as a server that hangs. After that, the time between two tokens counts. One timer, which an answer
 * that comes quickly never sees fire.
 */
export class Patience {
  readonly #options: PatienceOptions;
  readonly #look: () => Promise<{ readonly loading: boolean }>;
  readonly #giveUp: (error: unknown) => void;
  readonly #begunAt = performance.now();
  #loadedAt = this.#begunAt;
  #heardAt: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** `look` throws where LM Studio does not answer; `giveUp` is called once at most. */
  constructor(
    options: PatienceOptions,
    look: () => Promise<{ readonly loading: boolean }>,
    giveUp: (error: unknown) => void,
  ) {
    this.#options = options;
    this.#look = look;
    this.#giveUp = giveUp;
    this.#wait(options.silenceMs / 2);
  }

  /** A token is there. */
  heard(): void {
    this.#heardAt = performance.now();
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      if (this.#heardAt === undefined) void this.#lookNow();
      else this.#listen(this.#heardAt);
    }, ms);
  }

  #listen(heardAt: number): void {
    const { silenceMs } = this.#options;
    const leftMs = heardAt + silenceMs - performance.now();
    if (leftMs > 0) this.#wait(leftMs);
    else this.#fail(`no token for ${silenceMs / 1000} s`);
  }

  async #lookNow(): Promise<void> {
    const { silenceMs, firstTokenMs, loadMs } = this.#options;
    const { loading, failure } = await this.#look().then(
      (seen) => ({ ...seen, failure: undefined }),
      (failure: unknown) => ({ loading: false, failure }),
    );
    if (this.#timer === undefined) return;
    if (this.#heardAt !== undefined) return this.#listen(this.#heardAt);
    if (failure !== undefined) return this.#giveUp(failure);
    const now = performance.now();
    if (loading) this.#loadedAt = now;
    const limitAt = loading ? this.#begunAt + loadMs : this.#loadedAt + firstTokenMs;
    if (now < limitAt) return this.#wait(Math.min(silenceMs / 2, limitAt - now));
    this.#fail(
      loading ? `still loading after ${loadMs / 1000} s` : `no token after ${firstTokenMs / 1000} s`,
    );
  }

  #fail(what: string): void {
    this.#giveUp(new ChatError("upstream-timeout", `LM Studio: ${what}.`));
  }
}

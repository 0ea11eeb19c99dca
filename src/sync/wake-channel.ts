import { createClient, type RealtimeChannel, type SupabaseClient } from "@supabase/supabase-js";

export interface WakeChannelOptions {
  readonly url: string;
  /**
   * The publishable or anon key, and never the secret one: it stands in the address of a WebSocket. Whoever has it can
   * wake stations, which then ask the project whether there is anything new, and can do nothing else with it.
   */
  readonly key: string;
  /** Called when another station has sent something, and whenever the channel comes back: something may have been missed. */
  readonly onWake: () => void;
  readonly log: { info(fields: object, message: string): void };
}

const topic = "pugmark-sync";
const event = "changed";
/** Announcements are this far apart at least. */
const announceEveryMs = 500;
const reconnectMostMs = 60_000;

/**
 * Where the project has Realtime, stations tell each other through it that there is something new, and so need not wait
 * for their next look. Nothing else goes over it. Where there is none, nothing is lost but that.
 */
export class WakeChannel implements AsyncDisposable {
  readonly #options: WakeChannelOptions;
  readonly #client: SupabaseClient;
  readonly #channel: RealtimeChannel;
  #isJoined: boolean | undefined;
  #announcing: NodeJS.Timeout | undefined;
  #hasNews = false;

  constructor(options: WakeChannelOptions) {
    this.#options = options;
    this.#client = createClient(options.url, options.key, {
      auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
      realtime: { reconnectAfterMs: (tries: number) => Math.min(1_000 * 2 ** tries, reconnectMostMs) },
    });
    this.#channel = this.#client.channel(topic).on("broadcast", { event }, () => options.onWake());
    this.#channel.subscribe((status) => this.#became(status === "SUBSCRIBED"));
  }

  /** Whether others are heard; undefined as long as that is not known. */
  get isJoined(): boolean | undefined {
    return this.#isJoined;
  }

  /** Tells the other stations that there is something new. Of what comes soon after, it tells them once. */
  announce(): void {
    this.#hasNews = true;
    if (this.#announcing) return;
    this.#send();
    this.#announcing = setTimeout(() => {
      this.#announcing = undefined;
      if (this.#hasNews) this.announce();
    }, announceEveryMs).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#announcing);
    this.#isJoined = false;
    await this.#client.removeAllChannels();
    await this.#client.realtime.disconnect();
  }

  #send(): void {
    this.#hasNews = false;
    // Otherwise the library would send it by HTTP; who is not connected will look by himself.
    if (this.#isJoined) void this.#channel.send({ type: "broadcast", event, payload: {} });
  }

  #became(isJoined: boolean): void {
    if (isJoined === this.#isJoined) return;
    this.#isJoined = isJoined;
    const { log, onWake } = this.#options;
    if (isJoined) {
      log.info({ topic }, "changes of other stations are heard of through Realtime");
      onWake();
    } else log.info({ topic }, "the project's Realtime is away: changes of other stations are looked for");
  }
}

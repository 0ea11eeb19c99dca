import type { TokensPerDay } from "../config/formats.ts";
import { ChatError } from "./chat-error.ts";

export interface TokenBudgetOptions {
  readonly limits: TokensPerDay;
  /** Tokens that the log has of a caller since a time. */
  readonly usedSince: (caller: string, since: Date) => Promise<number>;
  /** Told when the log could not be read. */
  readonly warn: (error: unknown) => void;
  readonly clock?: () => number;
}

/** What a caller has of its day. */
export interface Budget {
  readonly limit: number;
  readonly remaining: number;
  /** Seconds until midnight UTC. */
  readonly resetS: number;
}

/** What is known of one caller's day. */
interface Account {
  readonly day: number;
  used: number;
  /** False until the log was asked once. */
  isKnown: boolean;
  /** When the log is to be read again. */
  refreshAt: number;
  reading: Promise<void> | undefined;
}

const dayMs = 86_400_000;
/** How old a sum may be; other servers at the same database may have spent since. */
const refreshMs = 60_000;
/** How soon the log is read again after it could not be. */
const retryMs = 10_000;

/**
 * Tokens that each caller has used today (UTC), and may. Read from the log when a caller first comes and
 * every now and then, counted here in between. While the log cannot be read, what was counted here is all
 * that counts: a database that is away is no reason to refuse. Calls under way are not foreseen, so the last
 * ones of a day may end past the limit.
 */
export class TokenBudgets {
  readonly #options: TokenBudgetOptions;
  readonly #clock: () => number;
  /** As many as there are keys. */
  readonly #accounts = new Map<string, Account>();

  constructor(options: TokenBudgetOptions) {
    this.#options = options;
    this.#clock = options.clock ?? Date.now;
  }

  /**
   * Throws `ChatError` `token-budget-spent`, or rejects with it; a promise only where the log has to be read
   * first.
   */
  admit(caller: string): Promise<void> | undefined {
    const limit = this.#limitOf(caller);
    if (limit === undefined) return undefined;
    const account = this.#account(caller);
    if (!account.isKnown) return account.reading?.then(() => this.#check(caller));
    this.#check(caller);
    return undefined;
  }

  /** Counts what a call has used. */
  spend(caller: string, tokens: number): void {
    if (this.#limitOf(caller) !== undefined) this.#account(caller).used += tokens;
  }

  /** How a caller stands, before any call that is under way; `undefined` where it has no limit. */
  async of(caller: string): Promise<Budget | undefined> {
    const limit = this.#limitOf(caller);
    if (limit === undefined) return undefined;
    const account = this.#account(caller);
    if (!account.isKnown) await account.reading;
    const remaining = Math.max(0, limit - this.#account(caller).used);
    return { limit, remaining, resetS: this.#resetS() };
  }

  #limitOf(caller: string): number | undefined {
    const { standard, byCaller } = this.#options.limits;
    const limit = byCaller.get(caller) ?? standard;
    return limit === Number.POSITIVE_INFINITY ? undefined : limit;
  }

  #check(caller: string): void {
    const limit = this.#limitOf(caller) as number;
    const { used } = this.#account(caller);
    if (used < limit) return;
    const resetS = this.#resetS();
    const shown = (tokens: number) => tokens.toLocaleString("en-US");
    throw new ChatError(
      "token-budget-spent",
      `${caller} has used ${shown(used)} of its ${shown(limit)} tokens of today (CHAT_TOKENS_PER_DAY); ` +
        `none are left until midnight UTC, in ${Math.floor(resetS / 3600)} h ${Math.floor((resetS % 3600) / 60)} min.`,
      { retryAfterS: resetS },
    );
  }

  #resetS(): number {
    return Math.ceil((dayMs - (this.#clock() % dayMs)) / 1000);
  }

  /** The account of today, with its sum on the way where that is missing or old. */
  #account(caller: string): Account {
    const now = this.#clock();
    const day = Math.floor(now / dayMs);
    let account = this.#accounts.get(caller);
    if (account?.day !== day) {
      account = { day, used: 0, isKnown: false, refreshAt: now, reading: undefined };
      this.#accounts.set(caller, account);
    }
    if (now >= account.refreshAt) account.reading ??= this.#read(caller, account);
    return account;
  }

  async #read(caller: string, account: Account): Promise<void> {
    const { usedSince, warn } = this.#options;
    let nextMs = refreshMs;
    try {
      const logged = await usedSince(caller, new Date(account.day * dayMs));
      // The log has what other servers spent, and may lack what was spent here a moment ago.
      account.used = Math.max(account.used, logged);
    } catch (error) {
      warn(error);
      nextMs = retryMs;
    }
    account.isKnown = true;
    account.refreshAt = this.#clock() + nextMs;
    account.reading = undefined;
  }
}

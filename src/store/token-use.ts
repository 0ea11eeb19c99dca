import { type Pool, query } from "./pool.ts";

/**
 * Tokens, of prompts and answers, that a caller had from a model since then. Cached answers cost none, and one
 * that identical questions share costs once.
 */
export async function tokensUsedSince(pool: Pool, caller: string, since: Date): Promise<number> {
  const { rows } = await query<{ tokens: number }>(
    pool,
    `select coalesce(sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)), 0)::float8 as tokens
     from interactions
     where caller = $1 and station_id is null and created_at >= $2 and not cached and cache is distinct from 'JOINED'`,
    [caller, since],
  );
  return rows[0]?.tokens ?? 0;
}

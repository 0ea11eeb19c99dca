/** The number with so many decimals and no noise of binary fractions behind them. */
export function rounded(value: number, decimals: number): number {
  return Number(value.toFixed(decimals));
}

/** Epoch milliseconds as RFC 3339 in UTC, without the milliseconds where there are none. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}

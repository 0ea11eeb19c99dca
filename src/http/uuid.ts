import { randomBytes } from "node:crypto";

/**
 * A UUIDv7 (RFC 9562), greater than every one given before it by this process: within a millisecond the 12 bits after
 * the version count on from a random start, and where they run out the clock is taken to be a millisecond further.
 * Random bytes are drawn many at a time, since asking for them costs ten times what the rest does.
 */
export function uuidv7(): string {
  const now = Date.now();
  if (now > lastMs) {
    lastMs = now;
    // The upper half of the counter stays free for counting.
    count = Number.parseInt(randomHex(3), 16) & 0x7ff;
    time = timeHex(now);
  } else if (++count > 0xfff) {
    lastMs += 1;
    count = 0;
    time = timeHex(lastMs);
  }
  const third = (0x7000 | count).toString(16);
  const random = randomHex(16);
  // The two bits of the variant, 10, before 62 random ones.
  const variant = "89ab"[Number.parseInt(random[0] as string, 16) & 3];
  return `${time}-${third}-${variant}${random.slice(1, 4)}-${random.slice(4)}`;
}

let lastMs = 0;
let count = 0;
/** The first two groups of digits, the same for all ids of a millisecond. */
let time = "";

function timeHex(ms: number): string {
  const digits = ms.toString(16).padStart(12, "0");
  return `${digits.slice(0, 8)}-${digits.slice(8)}`;
}

const poolBytes = 4096;
let digits = "";
let taken = 0;

function randomHex(length: number): string {
  if (taken + length > digits.length) {
    digits = randomBytes(poolBytes).toString("hex");
    taken = 0;
  }
  taken += length;
  return digits.slice(taken - length, taken);
}

import { crc32 } from "node:zlib";

/** Stands before each frame and nowhere else: JSON spells control characters out. ASCII's "record separator". */
export const frameMark = 0x1e;

/** The mark, length and CRC-32 of what follows in eight hexadecimal digits each, and a line feed. */
export const frameHeadBytes = 18;

/** Lines of text as they are put on disk: what was written together, with a checksum over it. */
export function frameOf(text: string): Buffer {
  const bytes = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(frameHeadBytes + bytes);
  frame.write(text, frameHeadBytes);
  const sum = crc32(frame.subarray(frameHeadBytes));
  frame.write(`\u001e${hex(bytes)}${hex(sum)}\n`, 0, "latin1");
  return frame;
}

/** Length in bytes and checksum that a frame's head announces; undefined where there is no head. */
export function parseFrameHead(head: Buffer): { readonly bytes: number; readonly sum: number } | undefined {
  if (head[0] !== frameMark) return undefined;
  const [, bytes, sum] = /^([0-9a-f]{8})([0-9a-f]{8})\n$/.exec(head.toString("latin1", 1)) ?? [];
  return bytes && sum ? { bytes: Number.parseInt(bytes, 16), sum: Number.parseInt(sum, 16) } : undefined;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

// Writes LINES numbered lines of 100 bytes as fast as its output takes them, tells in DONE_FILE how long that took, and stays.
import { writeFileSync, writeSync } from "node:fs";

const lines = Number(process.env.LINES);
const linesPerBlock = 640;
const block = Buffer.alloc(linesPerBlock * 100, "x");
for (let index = 0; index < linesPerBlock; index += 1) block[index * 100 + 99] = 0x0a;
const rest = new Int32Array(new SharedArrayBuffer(4));
const begunAt = Date.now();
for (let line = 0; line < lines; line += linesPerBlock) {
  const count = Math.min(linesPerBlock, lines - line);
  for (let index = 0; index < count; index += 1) {
    block.write(String(line + index).padStart(10, "0"), index * 100, "latin1");
    block[index * 100 + 10] = 0x20;
  }
  for (let offset = 0; offset < count * 100; ) {
    try {
      offset += writeSync(1, block, offset, count * 100 - offset);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(rest, 0, 0, 1);
    }
  }
}
writeFileSync(process.env.DONE_FILE, JSON.stringify({ begunAt, doneAt: Date.now() }));
setInterval(() => {}, 1_000_000);

// What does the chat server add to a call of the model, and how fast is an answer from its cache?
// Beside it, in the same run: the same calls straight to the stand-in for LM Studio. Every call is logged in Postgres
// before it is answered.
//
//   node bench/chat.ts [requests]
import { startLmStudio } from "../test/lm-studio/lm-studio.ts";
import { testStation } from "../test/support/station.ts";
import { fire, type Shot } from "./support/load.ts";
import { percentile, printMachine, rate, spread } from "./support/report.ts";

const total = Number(process.argv[2] ?? 4_000);
printMachine(`${total.toLocaleString("en")} chat calls, durable log on`);

await using lmStudio = await startLmStudio({
  respond: () => ({ text: "The bird roosted at the north pond." }),
});
await using station = await testStation({ DEEPSEEK_API_URL: lmStudio.url, LOG_LEVEL: "warn" });
await station.start("chat");

const json = { "content-type": "application/json" };
const direct = (index: number): Shot => ({
  method: "POST",
  path: "/v1/chat/completions",
  headers: json,
  body: JSON.stringify({
    model: "deepseek-r1-distill-qwen-7b",
    messages: [{ role: "user", content: `Where did it roost in night ${index}?` }],
  }),
});
const chat = (index: number): Shot => ({
  method: "POST",
  path: "/chat",
  headers: json,
  body: JSON.stringify({ prompt: `Where did it roost in night ${index}?` }),
});

for (const connections of [1, 64]) {
  const count = connections === 1 ? Math.ceil(total / 8) : total;
  const shots = (make: (index: number) => Shot, offset: number) =>
    Array.from({ length: count }, (_, index) => make(offset + index));
  const base = connections * 1_000_000;
  await fire(station.chat, connections, shots(chat, base + 500_000).slice(0, 200)); // warm-up
  const straight = await fire(lmStudio.url, connections, shots(direct, base));
  const uncached = await fire(station.chat, connections, shots(chat, base));
  const same = Array.from({ length: count }, () => chat(base));
  const cached = await fire(station.chat, connections, same);
  for (const [name, { failed }] of Object.entries({ straight, uncached, cached })) {
    if (failed > 0) throw new Error(`${name}: ${failed} failed`);
  }
  console.log(`${connections} connections`);
  console.log(`  straight to the stand-in   ${rate(count, straight.ms)}/s; ${spread(straight.samples)}`);
  console.log(`  /chat, not cached          ${rate(count, uncached.ms)}/s; ${spread(uncached.samples)}`);
  console.log(`  /chat, from the cache      ${rate(count, cached.ms)}/s; ${spread(cached.samples)}`);
  const added = percentile(uncached.samples, 0.5) - percentile(straight.samples, 0.5);
  console.log(
    `  added at the median: ${added.toFixed(2)} ms; cached to straight: ${(straight.ms / cached.ms).toFixed(2)} times its rate`,
  );
}
await station.end("SIGINT");

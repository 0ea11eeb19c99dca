// A process of a test that records one interaction after the other, several at a time, and prints the id of each that
// was acknowledged, or the code of the error. Goes on until it is killed, or has made as many as it was told.
//
//   node recorder.fixture.ts DATABASE_URL FOLDER [COUNT]
import { setTimeout as delay } from "node:timers/promises";
import { newInteraction, silent } from "./interaction.fixture.ts";
import { openInteractionLog } from "./interaction-log.ts";
import { openPool } from "./pool.ts";

const [url = "", folder = "", count = "1000000"] = process.argv.slice(2);
const pool = openPool({ url, name: "recorder" });
const log = openInteractionLog({ pool, folder, log: silent });
const { content } = newInteraction({}, { text: "The bird roosted at the north pond. ".repeat(30) });
let left = Number(count);

async function record(): Promise<void> {
  for (; left > 0; ) {
    left -= 1;
    // Some share what was asked and answered, some have it for themselves.
    const interaction = { ...newInteraction(), content: left % 2 ? content : { ...content } };
    const said = await log.record(interaction).then(
      () => interaction.id,
      (error: { code?: string }) => `${error.code}`,
    );
    process.stdout.write(`${said}\n`);
    await delay(1);
  }
}

await Promise.all(Array.from({ length: 8 }, record));
// Stays as it is, so that the test decides how it ends.
setInterval(() => {}, 60_000);

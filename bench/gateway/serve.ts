// A chat server to try things on: a station of its own in a temporary home, database and all, for a given LM Studio.
//
//   node bench/gateway/serve.ts http://127.0.0.1:1234
//
// Prints {"url","pid"} as JSON once it serves, and serves until SIGINT or SIGTERM.
import { once } from "node:events";
import { startPugmark } from "./gateways/pugmark.ts";

const [lmStudio = "http://127.0.0.1:1234"] = process.argv.slice(2);
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

// Such as --inspect-port or --cpu-prof, for whom a figure makes curious.
const { NODE_OPTIONS } = process.env;
await using running = await startPugmark(lmStudio, NODE_OPTIONS === undefined ? {} : { NODE_OPTIONS });
console.log(JSON.stringify({ url: running.origin, pid: running.pids()[0] }));
if (!stop.signal.aborted) await once(stop.signal, "abort");

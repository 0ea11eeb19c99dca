// Starts a process that it does not end: in its own group, or (FAMILY=setsid) in a session apart.
import { spawn } from "node:child_process";

const env = { ...process.env, BENCH_SERVICE: `${process.env.BENCH_SERVICE}'s child` };
spawn("sleep", ["600"], { env, detached: process.env.FAMILY === "setsid", stdio: "ignore" }).unref();
process.on("SIGTERM", () => process.exit(0));
setInterval(() => {}, 1_000_000);

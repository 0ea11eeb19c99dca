import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { percentile } from "../support/report.ts";
import { path, type Target } from "./ask.ts";
import { question } from "./question.ts";

export interface Load {
  readonly rps: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly requests: number;
  /** Other statuses than 200, and answers that did not come. */
  readonly failed: number;
  /** What all its questions have in common, and no other. */
  readonly text: string;
}

export interface LoadOptions {
  readonly connections: number;
  readonly seconds: number;
  /** Every request is the same; else all differ. */
  readonly same?: boolean;
}

/** What sends the load: `wrk` takes less of the processor from what is measured. */
export const loader = spawnSync("wrk", ["-v"]).error === undefined ? "wrk" : "raw sockets of Node";

/** Sends questions over kept connections, each with one under way, as fast as they are answered. */
export async function load(target: Target, options: LoadOptions): Promise<Load> {
  return loader === "wrk" ? await loadByWrk(target, options) : await loadBySockets(target, options);
}

let loads = 0;

/** What stands before and after the number that makes each question of a load differ. */
function newQuestion(): { before: string; after: string; text: string } {
  const [before = "", after = ""] = question({ mark: `${++loads}-@` }).split("@");
  return { before, after, text: before.slice(before.indexOf("bird ")) };
}

async function loadByWrk(target: Target, { connections, seconds, same = false }: LoadOptions): Promise<Load> {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-wrk-"));
  const { before, after, text } = newQuestion();
  const headers = Object.entries({ ...target.headers, "content-type": "application/json" });
  const script = `
local headers = {${headers.map(([name, value]) => `["${name}"] = [==[${value}]==]`).join(", ")}}
local count = 0
local function make(number) return wrk.format("POST", "${path}", headers, [==[${before}]==] .. number .. [==[${after}]==]) end
local first
request = function()
  ${same ? "first = first or make(0) return first" : "count = count + 1 return make(count)"}
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("\\n{\\"requests\\":%d,\\"us\\":%d,\\"p50Ms\\":%f,\\"p99Ms\\":%f,\\"failed\\":%d}\\n", summary.requests,
    summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end`;
  const file = join(folder, "load.lua");
  writeFileSync(file, script);
  const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "20s", "-s", file, target.origin];
  const { stdout } = await promisify(execFile)("wrk", args);
  rmSync(folder, { recursive: true });
  const { us, ...found } = JSON.parse(stdout.slice(stdout.lastIndexOf("\n{")));
  return { ...found, text, rps: Math.round((found.requests / us) * 1e6) };
}

async function loadBySockets(target: Target, { connections, seconds, same }: LoadOptions): Promise<Load> {
  const { hostname, port, host } = new URL(target.origin);
  const headers = Object.entries({ ...target.headers, "content-type": "application/json", host });
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const { before, after, text } = newQuestion();
  let count = 0;
  const next = () => {
    const body = `${before}${same ? 0 : ++count}${after}`;
    return `POST ${path} HTTP/1.1\r\n${lines}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  };
  const samples: number[] = [];
  let failed = 0;
  const begun = performance.now();
  const until = begun + seconds * 1000;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const socket = connect(Number(port), hostname).setNoDelay(true);
      let answer = "";
      let at = performance.now();
      socket.write(next());
      socket.setEncoding("latin1").on("data", (part: string) => {
        answer += part;
        if (!isWhole(answer)) return;
        const now = performance.now();
        if (answer.startsWith("HTTP/1.1 200")) samples.push(now - at);
        else failed += 1;
        answer = "";
        at = now;
        if (now < until) socket.write(next());
        else socket.end();
      });
      socket.on("error", () => {
        failed += 1;
      });
      socket.on("close", () => resolve());
      await promise;
    }),
  );
  const [p50Ms, p99Ms] = [percentile(samples, 0.5), percentile(samples, 0.99)];
  const rps = Math.round((samples.length / (performance.now() - begun)) * 1000);
  return { rps, p50Ms, p99Ms, requests: samples.length, failed, text };
}

/** Whether this is one whole answer; one byte is one character of it. */
function isWhole(answer: string): boolean {
  const end = answer.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const [, length] = /\r\ncontent-length: (\d+)/i.exec(answer.slice(0, end + 2)) ?? [];
  return length === undefined ? answer.endsWith("\r\n0\r\n\r\n") : answer.length >= end + 4 + Number(length);
}

import { once } from "node:events";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { type LmStudioOptions, startLmStudio } from "./lm-studio.ts";
import { type FaultName, faults, type Responder } from "./reply.ts";

const usage = `Stands in for LM Studio, without a model.
  node test/lm-studio/main.ts [--port 1234] [--model NAME]… [--tools] [--load-ms N] [--not-loaded]
    [--token T] [--thinking inline|unopened|separate] [--script FILE.ts] [--fault NAME]
  --script   a module whose default export (or export named respond) is (request) => reply
  --fault    every answer fails so: ${Object.keys(faults).join(", ")}`;

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "1234" },
    model: { type: "string", multiple: true, default: ["deepseek-r1-distill-qwen-7b"] },
    tools: { type: "boolean", default: false },
    "load-ms": { type: "string" },
    "not-loaded": { type: "boolean", default: false },
    token: { type: "string" },
    thinking: { type: "string", default: "inline" },
    script: { type: "string" },
    fault: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

if (values.help) {
  console.log(usage);
  process.exit(0);
}

await using lm = await startLmStudio({
  port: Number(values.port),
  models: values.model.map((id) => ({
    id,
    capabilities: values.tools ? ["tool_use"] : [],
    state: values["not-loaded"] ? "not-loaded" : "loaded",
  })),
  thinkingAs: values.thinking as NonNullable<LmStudioOptions["thinkingAs"]>,
  ...(values["load-ms"] ? { loadMs: Number(values["load-ms"]) } : {}),
  ...(values.token ? { token: values.token } : {}),
  ...(await responder()),
});
console.log(`stand-in for LM Studio on ${lm.url}`);
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
await once(stop.signal, "abort");

async function responder(): Promise<{ respond?: Responder }> {
  const { fault, script } = values;
  if (fault) return { respond: () => faults[fault as FaultName] };
  if (!script) return {};
  const module = (await import(pathToFileURL(resolve(script)).href)) as Record<string, Responder | undefined>;
  const respond = module.default ?? module.respond;
  if (!respond) throw new Error(`${script} exports no responder`);
  return { respond };
}

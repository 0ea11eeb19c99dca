import type { ActiveProbe } from "../process-manager/definition.ts";
import { argumentVector } from "../process-manager/resolve-definitions.ts";

/**
 * A command that does one try of a probe and exits with 0 where it passes, for supervisors that can only run
 * commands. HTTP and TCP are asked by the Node at `node`, since no image or machine is sure to have curl. Null for
 * a function of the manager's own process.
 */
export function probeCommand(probe: ActiveProbe, node: string): readonly [string, ...string[]] | null {
  const { timeoutMs = 1_000 } = probe;
  switch (probe.kind) {
    case "http": {
      const { url, headers = {}, status, body } = probe;
      const isWanted = status ? `${JSON.stringify(status)}.includes(r.status)` : "r.status<400";
      const matches = body === undefined ? "" : `&&new RegExp(${JSON.stringify(body)}).test(await r.text())`;
      const options = `{headers:${JSON.stringify(headers)},redirect:"manual",signal:AbortSignal.timeout(${timeoutMs})}`;
      const script = `fetch(${JSON.stringify(url)},${options}).then(async r=>process.exit(${isWanted}${matches}?0:1),()=>process.exit(1))`;
      return [node, "-e", script];
    }
    case "tcp": {
      const { host = "127.0.0.1", port = 0 } = probe;
      const script = `setTimeout(()=>process.exit(1),${timeoutMs});require("net").connect(${port},${JSON.stringify(host)},()=>process.exit(0)).on("error",()=>process.exit(1))`;
      return [node, "-e", script];
    }
    case "exec":
      return argumentVector(probe.command);
    case "check":
      return null;
  }
}

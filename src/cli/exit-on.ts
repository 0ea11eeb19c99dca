import { constants } from "node:os";
import type { ProcessManager } from "../process-manager/process-manager.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import type { ResolvedService } from "../process-manager/resolve-definitions.ts";
import type { Exit, ServiceEvent } from "../process-manager/service-status.ts";

/** Whose end is the end of everything: `NAME`, `NAME=any`, `NAME=success` or `NAME=failure`. */
export interface ExitOn {
  readonly name: string;
  readonly on: "any" | "success" | "failure";
}

/** Reads it from the command line. Throws `request-invalid`. */
export function parseExitOn(text: string): ExitOn {
  const [name = "", on = "any", ...rest] = text.split("=");
  if (name !== "" && rest.length === 0 && (on === "any" || on === "success" || on === "failure"))
    return { name, on };
  throw new ProcessManagerError(
    "request-invalid",
    `--exit-on is NAME, or NAME=any, success or failure; not ${text}`,
  );
}

/** Calls `onEnd` once with the exit code when one of the services (a name's replicas) has ended in the way that is waited for. */
export function watchForEnd(
  manager: ProcessManager,
  { on }: ExitOn,
  services: readonly ResolvedService[],
  onEnd: (exitCode: number) => void,
): void {
  const stop = manager.onEvent((event) => {
    const service = services.find(({ name }) => name === event.service);
    if (!service || !isEnd(event)) return;
    const { lastExit } = manager.services().find(({ name }) => name === event.service) ?? {};
    const isSuccess = lastExit?.code != null && service.restart.successExitCodes.includes(lastExit.code);
    if (on !== "any" && isSuccess !== (on === "success")) return;
    stop();
    onEnd(lastExit ? exitCodeOf(lastExit) : 1); // without an exit: it could not even be started
  });
}

/** By itself, that is: not for being asked to stop. A scheduled task goes back to waiting. */
function isEnd({ from, to }: ServiceEvent): boolean {
  if (from === "stopping" || from === to) return false;
  if (to === "waiting") return from === "starting";
  return to === "completed" || to === "stopped" || to === "backoff" || to === "failed";
}

/** As a shell counts: 128 and the number of the signal. */
function exitCodeOf({ code, signal }: Exit): number {
  return code ?? 128 + (signal ? constants.signals[signal] : 0);
}

import type { Definition } from "../process-manager/definition.ts";
import type { ResolvedService } from "../process-manager/resolve-definitions.ts";
import { ownServices } from "./carried.ts";
import { type Exported, head, type Surroundings } from "./exported.ts";
import { openVariables, secretNames } from "./secret-variables.ts";
import { assignment, commandOf, literal, timeSpan, unitFile } from "./systemd-syntax.ts";

export interface ManagerUnitOptions {
  readonly scope: "system" | "user";
  /** What runs the manager in the foreground: `node … up`. */
  readonly command: readonly [string, ...string[]];
  /** The manager's environment besides `PATH`. */
  readonly env: Readonly<Record<string, string>>;
  /** Whom a system unit runs as. */
  readonly user: string;
}

/**
 * One unit that runs the manager, and through it all services as they are: probes, held sockets and rolling restarts
 * included. systemd starts the manager with the machine and again whenever it dies.
 */
export function managerUnit(
  definitions: readonly Definition[],
  { project, root, home, path }: Surroundings,
  { scope, command, env, user }: ManagerUnitOptions,
): Exported {
  const name = `${project}.service`;
  const left = [
    "the other variables of this shell: services start from PATH, and what their definitions say",
    ...secretNames(env).map(
      (variable) =>
        `${variable} is a secret of this shell; put it where only the manager reads it, such as .env`,
    ),
  ];
  const text = unitFile(head(installation(name, scope), left), {
    Unit: {
      Description: literal(`${project}: process manager and its services`),
      After: scope === "system" ? "network.target" : null,
      // Also what fails again and again is tried again, until it has failed this often in a row.
      StartLimitIntervalSec: 60,
      StartLimitBurst: 20,
    },
    Service: {
      Type: "exec",
      ExecStart: commandOf(command),
      WorkingDirectory: literal(root),
      Environment: [["PATH", path] as const, ...openVariables(env)].map(([key, value]) =>
        assignment(key, value),
      ),
      User: scope === "system" ? user : null,
      // Not "always": `pugmark down` and a signal are wishes, and are granted.
      Restart: "on-failure",
      RestartSec: 0, // its start takes long enough to be no tight loop
      // Wrong settings do not get better by trying.
      RestartPreventExitStatus: 2,
      // The manager stops its services in order; whatever is left after it, or after its death, is killed.
      KillMode: "mixed",
      TimeoutStopSec: timeSpan(longestStopMs(definitions) + 10_000),
      // A service that runs out of memory is the manager's to restart, and no reason to stop the others.
      OOMPolicy: "continue",
      UMask: "0077",
      NoNewPrivileges: "yes",
      ...(scope === "system" ? hardening : {}),
      // A station below /tmp would be hidden from itself.
      PrivateTmp: scope === "system" && ![root, home].some(isTemporary) ? "yes" : null,
    },
    Install: { WantedBy: scope === "system" ? "multi-user.target" : "default.target" },
  });
  return { files: [{ name, text }], left };
}

/**
 * A user's systemd cannot give these. None keeps a child from its work: home, network and devices stay. Those that a
 * container's systemd fails to start with (kernel tunables and logs) are not among them.
 */
const hardening = {
  ProtectSystem: "full",
  ProtectKernelModules: "yes",
  ProtectControlGroups: "yes",
  ProtectClock: "yes",
  ProtectHostname: "yes",
  RestrictRealtime: "yes",
  RestrictSUIDSGID: "yes",
  LockPersonality: "yes",
};

function isTemporary(path: string): boolean {
  return /^\/(var\/)?tmp\//.test(path);
}

function installation(name: string, scope: "system" | "user"): string[] {
  return scope === "system"
    ? [
        `To install: copy to /etc/systemd/system, then`,
        `systemctl daemon-reload && systemctl enable --now ${name}`,
      ]
    : [
        `To install: copy to ~/.config/systemd/user, then`,
        `systemctl --user daemon-reload && systemctl --user enable --now ${name}`,
        `To run while you are not logged in: loginctl enable-linger`,
      ];
}

/** Dependants stop before what they depend on, so the longest chain of stop timeouts counts. */
function longestStopMs(definitions: readonly Definition[]): number {
  const services = ownServices(definitions);
  const byName = new Map(services.map((service) => [service.name, service]));
  const chain = (service: ResolvedService): number => {
    const below = service.dependsOn.map(({ name }) => byName.get(name)).filter((one) => one !== undefined);
    return service.stop.timeoutMs + Math.max(0, ...below.map(chain));
  };
  return Math.max(0, ...services.map(chain));
}

import { isIP } from "node:net";
import type { ActiveProbe, Definition } from "../process-manager/definition.ts";
import type { ResolvedService } from "../process-manager/resolve-definitions.ts";
import { calendarExpressions } from "./calendar.ts";
import { leftExternals, leftOfService, ownServices, readinessProbe } from "./carried.ts";
import { boundedName, type Exported, type ExportedFile, head, type Surroundings } from "./exported.ts";
import { probeCommand } from "./probe-command.ts";
import { openVariables, secretNames } from "./secret-variables.ts";
import { assignment, commandOf, literal, timeSpan, unitFile } from "./systemd-syntax.ts";

type Scope = "system" | "user";

/**
 * A unit for each service and each replica, a socket for each that is held, a timer for each schedule, and one target
 * for all of them: systemd in the manager's place.
 */
export function serviceUnits(
  definitions: readonly Definition[],
  around: Surroundings,
  scope: Scope,
): Exported {
  const services = ownServices(definitions);
  const parts = services.map((service) => unitsOf(service, around, scope));
  const externals = leftExternals(definitions);
  const target = targetOf(services, around, scope, externals);
  return {
    files: [target, ...parts.flatMap(({ files }) => files)],
    left: [...externals, ...parts.flatMap(({ left }) => left)],
  };
}

function targetOf(
  services: readonly ResolvedService[],
  { project }: Surroundings,
  scope: Scope,
  left: readonly string[],
): ExportedFile {
  const [folder, systemctl, wantedBy] =
    scope === "system"
      ? ["/etc/systemd/system", "systemctl", "multi-user.target"]
      : ["~/.config/systemd/user", "systemctl --user", "default.target"];
  const name = `${project}.target`;
  const purpose = [
    `All services of ${project}. To install: copy all files to ${folder}, then`,
    `${systemctl} daemon-reload && ${systemctl} enable --now ${name}`,
  ];
  const text = unitFile(head(purpose, left), {
    Unit: {
      Description: `All services of ${project}`,
      Wants: services.map((service) => `${unitName(project, service.name)}.${startedBy(service)}`),
    },
    Install: { WantedBy: wantedBy },
  });
  return { name, text };
}

function startedBy({ schedule }: ResolvedService): "service" | "timer" {
  return schedule !== null && calendarExpressions(schedule) ? "timer" : "service";
}

function unitsOf(service: ResolvedService, around: Surroundings, scope: Scope): Exported {
  const name = unitName(around.project, service.name);
  const address = heldAddress(service);
  const left = [...leftOfService(service, service.name), ...leftBySystemd(service, scope)];
  const files = [{ name: `${name}.service`, text: serviceUnit(service, around, scope, left) }];
  if (address) files.push({ name: `${name}.socket`, text: socketUnit(service, around, address) });
  const expressions = service.schedule === null ? null : calendarExpressions(service.schedule);
  if (expressions) files.push({ name: `${name}.timer`, text: timerUnit(service, around, expressions) });
  return { files, left };
}

function serviceUnit(
  service: ResolvedService,
  around: Surroundings,
  scope: Scope,
  left: readonly string[],
): string {
  const { restart, stop, user, dependsOn, kind } = service;
  const name = unitName(around.project, service.name);
  const socket = heldAddress(service) ? [`${name}.socket`] : [];
  const others = (isDone: boolean) =>
    dependsOn
      .filter(({ state }) => (state === "completed") === isDone)
      .map((other) => `${unitName(around.project, other.name)}.service`);
  const secrets = secretNames(service.env);
  const purpose = [`${service.name}: ${service.description ?? service.command.join(" ")}`];
  if (secrets.length > 0)
    purpose.push(
      "",
      `Its secrets belong in ${secretFile(around, service, scope).replace("%h", "~")}, mode 0600, a line NAME=value for each:`,
      ...secrets,
    );
  return unitFile(head(purpose, left), {
    Unit: {
      Description: literal(service.description ?? service.name),
      PartOf: `${around.project}.target`,
      Requires: [...socket, ...others(true)],
      // Not Requires: a dependency that is restarted does not restart what depends on it.
      Wants: others(false),
      After: [...socket, ...others(true), ...others(false)],
      StartLimitIntervalSec: timeSpan(restart.periodMs),
      // It counts starts, the manager restarts.
      StartLimitBurst: restart.intensity + 1,
    },
    Service: {
      Type: kind === "task" ? "oneshot" : "exec",
      // Done stays done, unless a timer is to start it again.
      RemainAfterExit: kind === "task" && service.schedule === null ? "yes" : null,
      ExecStart: commandOf(service.command),
      ExecStartPost: readinessWait(service, around),
      WorkingDirectory: literal(service.cwd),
      Environment: [["PATH", around.path] as const, ...openVariables(service.env)].map(([key, value]) =>
        assignment(key, value),
      ),
      EnvironmentFile: secrets.length > 0 ? secretFile(around, service, scope) : null,
      User: scope === "system" ? user?.uid : null,
      Group: scope === "system" ? user?.gid : null,
      Restart: restartOf(service),
      RestartSec: timeSpan(restart.backoffBaseMs),
      SuccessExitStatus: restart.successExitCodes.filter((code) => code !== 0).join(" ") || null,
      KillSignal: stop.signal,
      TimeoutStartSec: kind === "task" ? "infinity" : timeSpan(service.startTimeoutMs),
      TimeoutStopSec: timeSpan(stop.timeoutMs),
      MemoryMax: service.memoryMaxMiB === null ? null : Math.floor(service.memoryMaxMiB * 1024 ** 2),
      NoNewPrivileges: "yes",
    },
  });
}

function socketUnit(service: ResolvedService, { project }: Surroundings, address: string): string {
  return unitFile(
    head([`Holds the port of ${service.name}: while it restarts, clients wait and are not refused.`], []),
    {
      Unit: { Description: `Socket of ${service.name}`, PartOf: `${project}.target` },
      Socket: { ListenStream: address, FileDescriptorName: service.name },
    },
  );
}

function timerUnit(
  service: ResolvedService,
  { project }: Surroundings,
  expressions: readonly string[],
): string {
  return unitFile(
    head([`Starts ${service.name} at the times of the cron expression ${service.schedule}`], []),
    {
      Unit: { Description: `Schedule of ${service.name}`, PartOf: `${project}.target` },
      Timer: {
        OnCalendar: expressions,
        AccuracySec: "1s",
        Unit: `${unitName(project, service.name)}.service`,
      },
    },
  );
}

/** systemd counts a service as started when this is done: so what depends on it waits until it is ready. */
function readinessWait(service: ResolvedService, { node }: Surroundings): string | null {
  const probe = readinessProbe(service);
  const command = probe && probeCommand(probe, node);
  if (!probe || !command) return null;
  const seconds = Math.min(probe.periodMs ?? 2_000, 500) / 1_000;
  return commandOf(["/bin/sh", "-c", `until "$@"; do sleep ${seconds}; done`, "sh", ...command]);
}

/** What a task's `Type=oneshot` does not allow becomes what comes nearest. */
function restartOf({ restart: { policy }, kind }: ResolvedService): string {
  if (policy === "never") return "no";
  return kind === "task" ? "on-failure" : policy;
}

/** systemd takes numbers only. */
function heldAddress({ listen }: ResolvedService): string | null {
  if (!listen?.hold) return null;
  const host = listen.host === "localhost" ? "127.0.0.1" : listen.host;
  if (isIP(host) === 0) return null;
  return isIP(host) === 6 ? `[${host}]:${listen.port}` : `${host}:${listen.port}`;
}

function leftBySystemd(service: ResolvedService, scope: Scope): string[] {
  const { name, listen, liveness, restart, kind, schedule, user, memoryMaxMiB } = service;
  const left: string[] = [];
  if (liveness && liveness.kind !== "check")
    left.push("its liveness probe: a process that hangs but lives is not noticed");
  if (hasThresholds(readinessProbe(service)))
    left.push("the successes in a row and first delay of its readiness probe; one pass counts");
  if (listen?.hold && heldAddress(service) === null)
    left.push(`the held socket: ${listen.host} is a name, and a socket unit wants an address`);
  if (listen?.hold) left.push("restarts without a gap: clients wait in the socket's queue meanwhile");
  if (restart.policy !== "never" && restart.backoffCapMs > restart.backoffBaseMs)
    left.push(
      `the pause that grows from ${timeSpan(restart.backoffBaseMs)} to ${timeSpan(restart.backoffCapMs)}; it stays the first (RestartSteps= in systemd 254 and newer)`,
    );
  if (kind === "task" && restart.policy === "always") left.push("the restart after success");
  if (schedule !== null && !calendarExpressions(schedule))
    left.push(`its schedule ${schedule}, which OnCalendar= cannot say; it runs with the target`);
  if (user && scope === "user") left.push(`the user ${user.uid}: a user's systemd runs all as that user`);
  if (memoryMaxMiB !== null) left.push("the gentle end above its memory limit: the kernel kills it there");
  return left.map((what) => `${name}: ${what}`);
}

function hasThresholds(probe: ActiveProbe | null): boolean {
  return probe !== null && ((probe.successThreshold ?? 1) > 1 || (probe.initialDelayMs ?? 0) > 0);
}

/** Below `/etc` for the system, below `~/.config` for a user. */
function secretFile({ project }: Surroundings, { name }: ResolvedService, scope: Scope): string {
  return `${scope === "system" ? "/etc" : "%h/.config"}/${project}/${name}.env`;
}

/** A unit's name with its ending may have 255 characters. */
function unitName(project: string, name: string): string {
  return boundedName(`${project}-${name}`, 240);
}

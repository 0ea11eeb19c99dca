import { stringify } from "yaml";
import type { ActiveProbe, Definition } from "../process-manager/definition.ts";
import { leftExternals, readinessProbe } from "./carried.ts";
import {
  type Container,
  containers,
  dockerfiles,
  homeFolder,
  postgresFolder,
  postgresImage,
} from "./container.ts";
import { type Exported, head, mark, type Surroundings } from "./exported.ts";
import { probeCommand } from "./probe-command.ts";

const exampleName = "compose.env.example";

/** A Compose project: the file, a Dockerfile for what is the project's own, and the names of the secrets it needs. */
export function composeProject(definitions: readonly Definition[], around: Surroundings): Exported {
  const all = containers(definitions, around, (name) => name);
  const variables = secretVariables(all, new Map(definitions.map((one) => [one.name, one])));
  const left = [...leftExternals(definitions), ...all.flatMap((one) => [...one.left, ...leftByCompose(one)])];
  const volumes = [
    ...all.filter(({ image }) => image === "postgres").map(({ name }) => name),
    ...(all.some(({ usesHome }) => usesHome) ? ["home"] : []),
  ];
  const project = {
    name: around.project,
    services: Object.fromEntries(all.map((one) => [one.name, serviceOf(one, all, variables, around)])),
    ...(volumes.length > 0 ? { volumes: Object.fromEntries(volumes.map((name) => [name, {}])) } : {}),
  };
  const purpose = [
    `Belongs in ${around.root}, with the files beside it. Then`,
    ...(variables.size > 0
      ? [
          `cp ${exampleName} compose.env && "$EDITOR" compose.env`,
          "docker compose --env-file compose.env up --build --wait",
        ]
      : ["docker compose up --build --wait"]),
  ];
  const files = [
    { name: "compose.yaml", text: `${head(purpose, left)}\n${stringify(project, { lineWidth: 0 })}` },
  ];
  if (all.some(({ image }) => image === "project")) files.push(...dockerfiles(around));
  const names = [...new Set(variables.values())].sort();
  if (names.length > 0) {
    const text = `${mark}\n# What compose.yaml needs to be told.\n${names.map((name) => `${name}=\n`).join("")}`;
    files.push({ name: exampleName, text });
  }
  return { files, left };
}

function serviceOf(
  container: Container,
  all: readonly Container[],
  variables: ReadonlyMap<string, string>,
  around: Surroundings,
): object {
  const { name, service, image, command, env, secrets, dependsOn, replicas } = container;
  const { listen, stop, user, memoryMaxMiB } = service;
  const secret = (key: string) => required(variables.get(`${name} ${key}`) ?? key, `see ${exampleName}`);
  const last = (listen?.port ?? 0) + replicas - 1;
  const published = listen && (replicas > 1 ? `${listen.port}-${last}` : String(listen.port));
  const volumes = [
    ...(image === "postgres" ? [`${name}:${postgresFolder}`] : []),
    ...(container.usesHome ? [`home:${homeFolder}`] : []),
  ];
  return {
    ...imageOf(container, variables, around),
    ...(command ? { command: command.map(escaped), working_dir: escaped(container.folder) } : {}),
    environment: {
      ...Object.fromEntries(Object.entries(env).map(([key, value]) => [key, escaped(value)])),
      ...Object.fromEntries(secrets.map((key) => [key, secret(key)])),
    },
    ...(listen && published ? { ports: [`127.0.0.1:${published}:${listen.port}`] } : {}),
    ...(volumes.length > 0 ? { volumes } : {}),
    ...(dependsOn.length > 0 ? { depends_on: conditions(dependsOn, all) } : {}),
    ...healthcheckOf(container),
    ...(user && image !== "postgres" ? { user: `${user.uid}:${user.gid}` } : {}),
    // A scheduled task is not for `up` to run.
    ...(service.schedule === null ? {} : { profiles: ["scheduled"] }),
    restart: restartOf(container),
    stop_signal: stop.signal,
    stop_grace_period: duration(stop.timeoutMs),
    init: true,
    security_opt: ["no-new-privileges:true"],
    deploy: {
      replicas,
      ...(memoryMaxMiB === null ? {} : { resources: { limits: { memory: `${bytes(memoryMaxMiB)}b` } } }),
    },
  };
}

function imageOf(
  { image, name, service }: Container,
  variables: ReadonlyMap<string, string>,
  { project }: Surroundings,
): object {
  if (image === "postgres") return { image: postgresImage };
  if (image === "project")
    return { image: project, build: { context: ".", dockerfile: `${project}.Dockerfile` } };
  return { image: required(variables.get(name) ?? name, `an image that has ${service.command[0]}`) };
}

function conditions(dependsOn: Container["dependsOn"], all: readonly Container[]): object {
  return Object.fromEntries(
    dependsOn.map(({ name, state }) => {
      const other = all.find((one) => one.name === name);
      const isAsked = other !== undefined && "healthcheck" in healthcheckOf(other);
      const ready = isAsked ? "service_healthy" : "service_started";
      const condition = { started: "service_started", ready, completed: "service_completed_successfully" }[
        state
      ];
      return [name, { condition }];
    }),
  );
}

function healthcheckOf({ service, image }: Container): { readonly healthcheck?: object } {
  if (image === "postgres") {
    const test = ["CMD-SHELL", "pg_isready -U postgres"];
    return { healthcheck: { test, interval: "5s", start_period: "60s", start_interval: "500ms" } };
  }
  const probe = askedProbe(service);
  const command = probe && probeCommand(probe, "node");
  if (!command) return {};
  const { periodMs = 2_000, timeoutMs = 1_000, failureThreshold = 3 } = probe;
  return {
    healthcheck: {
      test: ["CMD", ...command.map(escaped)],
      interval: duration(periodMs),
      // Node itself takes a moment to start.
      timeout: duration(timeoutMs + 1_000),
      retries: failureThreshold,
      start_period: duration(service.startTimeoutMs),
      start_interval: "500ms",
    },
  };
}

/** There is one question for both: readiness where it is asked, since dependants wait for it. */
function askedProbe(service: Container["service"]): ActiveProbe | null {
  const { liveness } = service;
  return readinessProbe(service) ?? (liveness && liveness.kind !== "check" ? liveness : null);
}

function restartOf({ service: { restart } }: Container): string {
  if (restart.policy === "never") return "no";
  return restart.policy === "always" ? "always" : `on-failure:${restart.intensity}`;
}

function leftByCompose(container: Container): string[] {
  const { name, service, image, dependsOn } = container;
  const { liveness, schedule, restart } = service;
  const probe = askedProbe(service);
  const left: string[] = [];
  if (liveness && liveness.kind !== "check")
    left.push("the restart when its liveness fails: Compose only shows that it is unhealthy");
  if (probe && (probe.successThreshold ?? 1) > 1) left.push("the successes in a row that its probe wants");
  if (image === "unknown" && probe && probe.kind !== "exec")
    left.push("its healthcheck, unless its image has node to ask with");
  if (schedule !== null)
    left.push(`its schedule ${schedule}: have cron run "docker compose run --rm ${name}"`);
  if (restart.successExitCodes.some((code) => code !== 0))
    left.push("its exit codes that mean success; only 0 does");
  if (dependsOn.length > 0 && restart.policy !== "never")
    left.push("waiting for what it depends on when the machine starts: Docker restarts it at once");
  return left.map((what) => `${name}: ${what}`);
}

/**
 * By `service NAME` of a secret, and by `service` for an image: what it is called in `compose.env`. One
 * name for all services where they have the same value, and one for each where they differ.
 */
function secretVariables(
  all: readonly Container[],
  definitions: ReadonlyMap<string, Definition>,
): Map<string, string> {
  const valueIn = (name: string, key: string): string | undefined => {
    const definition = definitions.get(name);
    return definition?.kind === "external" ? undefined : definition?.env?.[key];
  };
  const named = new Map<string, string>();
  for (const { name, secrets, image } of all) {
    for (const key of secrets) {
      const users = all.filter((one) => one.secrets.includes(key));
      const isShared = users.every((one) => valueIn(one.name, key) === valueIn(name, key));
      named.set(`${name} ${key}`, isShared ? key : `${upper(name)}_${key}`);
    }
    if (image === "unknown") named.set(name, `${upper(name)}_IMAGE`);
  }
  return named;
}

function upper(name: string): string {
  return name.toUpperCase().replaceAll("-", "_");
}

function required(variable: string, message: string): string {
  return `\${${variable}:?${message.replaceAll(/[${}]/g, "")}}`;
}

/** A dollar sign that is no variable of Compose's. */
function escaped(text: string): string {
  return text.replaceAll("$", "$$$$");
}

function duration(milliseconds: number): string {
  const whole = Math.ceil(milliseconds);
  return whole % 1000 === 0 ? `${whole / 1000}s` : `${whole}ms`;
}

function bytes(mebibytes: number): number {
  return Math.floor(mebibytes * 1024 ** 2);
}

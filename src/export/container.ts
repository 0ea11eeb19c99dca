import { basename, isAbsolute, relative } from "node:path";
import type { Definition } from "../process-manager/definition.ts";
import type { ResolvedService } from "../process-manager/resolve-definitions.ts";
import { leftOfService, ownServices } from "./carried.ts";
import { type ExportedFile, head, type Surroundings } from "./exported.ts";
import { openVariables, secretNames } from "./secret-variables.ts";

/** A service as a container; its replicas are the same but for what the target numbers itself. */
export interface Container {
  readonly name: string;
  /** Of the first replica. */
  readonly service: ResolvedService;
  readonly replicas: number;
  readonly dependsOn: ResolvedService["dependsOn"];
  /** Whose image it needs: the project's own with Node, Postgres's official one, or one that only its author knows. */
  readonly image: "project" | "postgres" | "unknown";
  /** Null: what the image runs by itself. */
  readonly command: readonly [string, ...string[]] | null;
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
  /** Whether it is told of the manager's home, which is at `homeFolder` there. */
  readonly usesHome: boolean;
  readonly left: readonly string[];
}

/** Where the project and the manager's home are in a container. */
const projectFolder = "/app";
export const homeFolder = "/data";

export const postgresImage = "postgres:18-bookworm";
/** Where that image keeps its databases. */
export const postgresFolder = "/var/lib/postgresql";

/**
 * The services as containers. What names another service by a port of this machine is made to name it by
 * `hostOf(its name)`.
 */
export function containers(
  definitions: readonly Definition[],
  around: Surroundings,
  hostOf: (name: string) => string,
): Container[] {
  const services = ownServices(definitions);
  const groupOf = new Map(services.map(({ name, group }) => [name, group]));
  const ports = new Map(services.flatMap(({ group, listen }) => (listen ? [[listen.port, group]] : [])));
  const groups = Map.groupBy(services, ({ group }) => group);
  return [...groups].flatMap(([name, replicas]) => {
    const [service] = replicas;
    if (!service) return [];
    const there = (text: string) => elsewhere(text, name, ports, around, hostOf);
    const image = imageOf(service, around);
    const [program, ...args] = service.command;
    const { REPLICA: _number, ...given } = service.env;
    const env = Object.fromEntries(openVariables(given).map(([key, value]) => [key, there(value)]));
    const command = [image === "project" ? "node" : program, ...args.map(there)] as const;
    const dependsOn = service.dependsOn.map(({ name: other, state }) => ({
      name: groupOf.get(other) ?? other,
      state,
    }));
    return [
      {
        name,
        service,
        replicas: replicas.length,
        dependsOn: [...new Map(dependsOn.map((one) => [one.name, one])).values()],
        image,
        command: image === "postgres" ? null : command,
        folder: there(service.cwd),
        env: image === "postgres" ? { PGPORT: String(service.listen?.port ?? 5432) } : env,
        secrets: image === "postgres" ? ["POSTGRES_PASSWORD"] : secretNames(given),
        usesHome: image !== "postgres" && [...command, ...Object.values(env)].some(isInHome),
        left: leftInContainer(service, name, image, replicas.length),
      },
    ];
  });
}

/** The image of the project's own Node programs, and what must not get into it. */
export function dockerfiles({ project, root, home, nodeVersion }: Surroundings): ExportedFile[] {
  const name = `${project}.Dockerfile`;
  const homeInside = relative(root, home);
  const isInside = homeInside !== "" && !homeInside.startsWith("..") && !isAbsolute(homeInside);
  const kept = [
    ".git",
    "node_modules",
    ".node",
    ".env",
    ".env.*",
    "*.log",
    ...(isInside ? [homeInside] : []),
  ];
  return [
    {
      name,
      text: `${head([`The programs of ${project}; belongs in ${root}.`], [])}
FROM node:${nodeVersion}-bookworm-slim
WORKDIR ${projectFolder}
COPY . .
RUN if [ -f package-lock.json ]; then npm ci --omit=dev --ignore-scripts; fi
RUN mkdir ${homeFolder} && chown node:node ${homeFolder}
USER node
`,
    },
    { name: `${name}.dockerignore`, text: `${head(["Stays out of the image."], [])}\n${kept.join("\n")}\n` },
  ];
}

function imageOf({ command }: ResolvedService, { node }: Surroundings): Container["image"] {
  const [program] = command;
  if (program === node || basename(program) === "node") return "project";
  return command.some((word) => basename(word) === "postgres") ? "postgres" : "unknown";
}

/** Folders of this machine become those of the container, and other services' ports of this machine theirs. */
function elsewhere(
  text: string,
  own: string,
  ports: ReadonlyMap<number, string>,
  { root, home, node }: Surroundings,
  hostOf: (name: string) => string,
): string {
  const moved = [
    [home, homeFolder],
    [node, "node"],
    [root, projectFolder],
  ] as const;
  const folders = moved.reduce((so, [from, to]) => so.replaceAll(pathPattern(from), () => to), text);
  return folders.replaceAll(/(?:127\.0\.0\.1|localhost|\[::1\]):(\d+)(?!\d)/g, (address, port: string) => {
    const name = ports.get(Number(port));
    return name === undefined || name === own ? address : `${hostOf(name)}:${port}`;
  });
}

/** The path and no longer one that begins alike. */
function pathPattern(path: string): RegExp {
  return new RegExp(`${RegExp.escape(path)}(?![\\w.-])`, "g");
}

function isInHome(text: string): boolean {
  return pathPattern(homeFolder).test(text);
}

function leftInContainer(
  service: ResolvedService,
  name: string,
  image: Container["image"],
  replicas: number,
): string[] {
  const { listen, restart } = service;
  const left: string[] = [];
  if (listen?.hold)
    left.push("the held socket: it has to listen on PORT itself, and is away while it restarts");
  if (listen?.relay) left.push("the relay that holds its port: it is away while it restarts");
  const isLoopback = listen !== null && /^(127\.|::1$|localhost$)/.test(listen.host);
  if (isLoopback && image !== "postgres")
    left.push(`that it listens on ${listen.host}: in a container it has to listen on 0.0.0.0 to be reached`);
  if (image === "postgres")
    left.push(`its own program and data: ${postgresImage} runs there, with an empty database`);
  if (image === "unknown") left.push(`its program, ${service.command[0]}: name an image that has it`);
  if (replicas > 1)
    left.push("a port and a REPLICA number for each replica: all of them have the first one's port");
  if (restart.policy !== "never")
    left.push("the intensity and pauses of its restarts; the target has its own");
  return [...leftOfService(service, name), ...left.map((what) => `${name}: ${what}`)];
}

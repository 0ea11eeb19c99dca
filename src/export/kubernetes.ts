import type { IDeployment } from "kubernetes-models/apps/v1/Deployment";
import type { IStatefulSet } from "kubernetes-models/apps/v1/StatefulSet";
import type { ICronJob } from "kubernetes-models/batch/v1/CronJob";
import type { IJob } from "kubernetes-models/batch/v1/Job";
import type { IConfigMap } from "kubernetes-models/v1/ConfigMap";
import type { IContainer } from "kubernetes-models/v1/Container";
import type { IPodTemplateSpec } from "kubernetes-models/v1/PodTemplateSpec";
import type { IService } from "kubernetes-models/v1/Service";
import type { IVolume } from "kubernetes-models/v1/Volume";
import { stringify } from "yaml";
import type { Definition } from "../process-manager/definition.ts";
import { plainCron } from "./calendar.ts";
import { leftExternals } from "./carried.ts";
import {
  type Container,
  containers,
  dockerfiles,
  homeFolder,
  postgresFolder,
  postgresImage,
} from "./container.ts";
import { boundedName, type Exported, head, type Surroundings } from "./exported.ts";
import { escaped, leftOfProbes, probesOf } from "./kubernetes-probe.ts";

type Manifest = IDeployment | IStatefulSet | IJob | ICronJob | IConfigMap | IService;

/** Manifests of one namespace: a workload for each service, its settings, and a name for whoever it serves. */
export function kubernetesManifests(definitions: readonly Definition[], around: Surroundings): Exported {
  const nameOf = (name: string): string => objectName(around.project, name);
  const all = containers(definitions, around, nameOf);
  const left = [
    ...leftExternals(definitions),
    ...all.flatMap((one) => [...one.left, ...leftByKubernetes(one, all)]),
  ];
  const secrets = all
    .filter((one) => one.secrets.length > 0)
    .map((one) => secretCommand(nameOf(one.name), one));
  const purpose = [
    ...(all.some(({ image }) => image === "project")
      ? [
          `The image "${around.project}" has to be where the cluster finds it; in ${around.root}:`,
          `docker build -t ${around.project} -f ${around.project}.Dockerfile .`,
        ]
      : []),
    ...(secrets.length > 0 ? ["The secrets have to be there first:", ...secrets] : []),
    "Then: kubectl apply -f kubernetes.yaml",
  ];
  const documents = all
    .flatMap((one) => manifestsOf(one, all, around))
    .map((manifest) => stringify(manifest, { lineWidth: 0 }));
  const files = [{ name: "kubernetes.yaml", text: `${head(purpose, left)}\n${documents.join("---\n")}` }];
  if (all.some(({ image }) => image === "project")) files.push(...dockerfiles(around));
  return { files, left };
}

function manifestsOf(container: Container, all: readonly Container[], around: Surroundings): Manifest[] {
  const { name, env, service } = container;
  const metadata = { name: objectName(around.project, name), labels: labelsOf(name, around) };
  const settings: IConfigMap = { apiVersion: "v1", kind: "ConfigMap", metadata, data: { ...env } };
  const isReached = service.listen !== null;
  return [
    ...(Object.keys(env).length > 0 ? [settings] : []),
    ...(isReached ? [serviceOf(container, around, metadata)] : []),
    workloadOf(container, all, around, metadata),
  ];
}

type Metadata = { readonly name: string; readonly labels: Record<string, string> };

function workloadOf(
  container: Container,
  all: readonly Container[],
  around: Surroundings,
  metadata: Metadata,
): Manifest {
  const { service, replicas, image, name } = container;
  const selector = { matchLabels: labelsOf(name, around) };
  const pod = podOf(container, all, around);
  if (service.kind === "task") {
    const job = {
      backoffLimit: service.restart.policy === "never" ? 0 : service.restart.intensity,
      template: { ...pod, spec: { ...pod.spec, restartPolicy: "Never" } },
    } as const;
    const schedule = service.schedule === null ? null : plainCron(service.schedule);
    if (schedule === null) return { apiVersion: "batch/v1", kind: "Job", metadata, spec: job };
    const spec = {
      schedule,
      timeZone: around.timeZone,
      concurrencyPolicy: "Forbid" as const,
      jobTemplate: { spec: job },
    };
    return { apiVersion: "batch/v1", kind: "CronJob", metadata, spec };
  }
  if (image !== "postgres") {
    const spec = { replicas, selector, template: pod };
    return { apiVersion: "apps/v1", kind: "Deployment", metadata, spec };
  }
  const claim = {
    metadata: { name: "data" },
    spec: { accessModes: ["ReadWriteOnce" as const], resources: { requests: { storage: "10Gi" } } },
  };
  const spec = {
    serviceName: metadata.name,
    replicas,
    selector,
    template: pod,
    volumeClaimTemplates: [claim],
  };
  return { apiVersion: "apps/v1", kind: "StatefulSet", metadata, spec };
}

function serviceOf({ service, name }: Container, around: Surroundings, metadata: Metadata): IService {
  const port = service.listen?.port ?? 0;
  const spec = { selector: labelsOf(name, around), ports: [{ name: "main", port, targetPort: port }] };
  return { apiVersion: "v1", kind: "Service", metadata, spec };
}

function podOf(
  container: Container,
  all: readonly Container[],
  around: Surroundings,
): IPodTemplateSpec & {
  readonly spec: object;
} {
  const { name, service, image } = container;
  // The user that the image brings: node, postgres; for others the usual first one.
  const uid = image === "postgres" ? 999 : (service.user?.uid ?? 1_000);
  const gid = image === "postgres" ? 999 : (service.user?.gid ?? 1_000);
  const waits = waitsOf(container, all, around);
  const volumes: IVolume[] = foldersOf(container)
    .filter((folder) => folder !== postgresFolder)
    .map((folder) => ({ name: volumeName(folder), emptyDir: {} }));
  return {
    metadata: { labels: labelsOf(name, around) },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false, // or they would look like settings of ours
      securityContext: {
        runAsNonRoot: true,
        runAsUser: uid,
        runAsGroup: gid,
        fsGroup: gid,
        seccompProfile: { type: "RuntimeDefault" },
      },
      terminationGracePeriodSeconds: Math.ceil(service.stop.timeoutMs / 1_000),
      ...(waits.length > 0 ? { initContainers: waits } : {}),
      containers: [mainContainer(container, around)],
      volumes,
    },
  };
}

function mainContainer(container: Container, around: Surroundings): IContainer {
  const { name, service, image, command, env, secrets, folder } = container;
  const { listen, memoryMaxMiB } = service;
  const object = objectName(around.project, name);
  return {
    name: boundedName(name, 63),
    image: { project: around.project, postgres: postgresImage, unknown: object }[image],
    ...(command ? { command: command.map(escaped), workingDir: folder } : {}),
    envFrom: [
      ...(Object.keys(env).length > 0 ? [{ configMapRef: { name: object } }] : []),
      ...(secrets.length > 0 ? [{ secretRef: { name: object } }] : []),
    ],
    ...(listen ? { ports: [{ name: "main", containerPort: listen.port }] } : {}),
    ...probesOf(container),
    ...(memoryMaxMiB === null
      ? {}
      : { resources: { limits: { memory: String(Math.floor(memoryMaxMiB * 1024 ** 2)) } } }),
    securityContext: confined,
    volumeMounts: foldersOf(container).map((mountPath) => ({ name: volumeName(mountPath), mountPath })),
  };
}

const confined = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** The only folders that a container may write to. */
function foldersOf({ image, usesHome }: Container): string[] {
  if (image === "postgres") return ["/tmp", "/var/run/postgresql", postgresFolder];
  return ["/tmp", ...(usesHome ? [homeFolder] : [])];
}

function volumeName(folder: string): string {
  return folder === postgresFolder
    ? "data"
    : folder
        .slice(1)
        .replaceAll("/", "-")
        .replace(/^data$/, "home");
}

/** A pod that needs another service begins when that takes connections. */
function waitsOf({ dependsOn }: Container, all: readonly Container[], around: Surroundings): IContainer[] {
  return dependsOn.flatMap(({ name, state }) => {
    const port = all.find((one) => one.name === name)?.service.listen?.port;
    if (port === undefined || state === "completed") return [];
    const script = `until nc -z ${objectName(around.project, name)} ${port}; do sleep 1; done`;
    return [
      {
        name: boundedName(`wait-for-${name}`, 63),
        image: "busybox:1.37",
        command: ["sh", "-c", script],
        securityContext: confined,
      },
    ];
  });
}

function labelsOf(name: string, { project }: Surroundings): Record<string, string> {
  return {
    "app.kubernetes.io/name": boundedName(name, 63),
    "app.kubernetes.io/part-of": boundedName(project, 63),
  };
}

/** A CronJob's name may have 52 characters, others 63. */
function objectName(project: string, name: string): string {
  return boundedName(`${project}-${name}`, 52);
}

function secretCommand(name: string, { secrets }: Container): string {
  return `kubectl create secret generic ${name} ${secrets.map((key) => `--from-literal=${key}=…`).join(" ")}`;
}

function leftByKubernetes(container: Container, all: readonly Container[]): string[] {
  const { name, service, image, dependsOn, usesHome } = container;
  const { kind, restart, stop, schedule } = service;
  const left: string[] = [...leftOfProbes(container)];
  if (kind === "service" && restart.policy !== "always")
    left.push(`the restart policy ${restart.policy}: a Deployment restarts always`);
  if (restart.successExitCodes.some((code) => code !== 0))
    left.push("its exit codes that mean success; only 0 does");
  if (stop.signal !== "SIGTERM" && image !== "postgres")
    left.push(`its stop signal ${stop.signal}: the image's STOPSIGNAL counts`);
  if (schedule !== null && plainCron(schedule) === null)
    left.push(`its schedule ${schedule}, which is more than plain cron; it is a Job that runs once`);
  if (usesHome) left.push(`what it keeps in its home (${homeFolder}): that is empty in each new pod`);
  for (const { name: other, state } of dependsOn) {
    const port = all.find((one) => one.name === other)?.service.listen;
    if (state === "completed") left.push(`waiting until ${other} is done: apply that Job first`);
    else if (!port) left.push(`waiting for ${other}, which has no port to ask at`);
    else if (state === "started")
      left.push(`waiting for ${other} to have started; it waits until that is ready`);
  }
  return left.map((what) => `${name}: ${what}`);
}

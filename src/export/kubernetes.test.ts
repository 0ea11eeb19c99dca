import assert from "node:assert/strict";
import { test } from "node:test";
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { StatefulSet } from "kubernetes-models/apps/v1/StatefulSet";
import { CronJob } from "kubernetes-models/batch/v1/CronJob";
import { Job } from "kubernetes-models/batch/v1/Job";
import { ConfigMap } from "kubernetes-models/v1/ConfigMap";
import { Service } from "kubernetes-models/v1/Service";
import { parseAllDocuments } from "yaml";
import { everyDefinition } from "../../test/support/definitions.ts";
import { type Definition, defineService } from "../process-manager/definition.ts";
import type { Surroundings } from "./exported.ts";
import { kubernetesManifests } from "./kubernetes.ts";

const around: Surroundings = {
  project: "test",
  node: process.execPath,
  nodeVersion: "24.21.0",
  root: "/srv/test",
  home: "/srv/test/.home",
  path: "/usr/bin:/bin",
  timeZone: "Europe/Madrid",
};

/** What checks a manifest of that kind against the schema that Kubernetes publishes. */
const models = { Deployment, StatefulSet, CronJob, Job, ConfigMap, Service };

function textOf(definitions: readonly Definition[]): string {
  const file = kubernetesManifests(definitions, around).files.find(({ name }) => name === "kubernetes.yaml");
  assert.ok(file);
  return file.text;
}

function manifestsOf(definitions: readonly Definition[]) {
  return parseAllDocuments(textOf(definitions)).map((document) => document.toJS());
}

function manifest(kind: keyof typeof models, name: string, definitions = everyDefinition) {
  const found = manifestsOf(definitions).find((one) => one.kind === kind && one.metadata.name === name);
  assert.ok(found, `no ${kind} ${name}`);
  return found;
}

function validate(one: { readonly kind: keyof typeof models }): void {
  new models[one.kind](one as never).validate();
}

test("every manifest is one by the schema of its kind", () => {
  const all = manifestsOf(everyDefinition);
  assert.deepEqual(
    all.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    [
      "ConfigMap test-database",
      "Service test-database",
      "StatefulSet test-database",
      "Job test-migrate",
      "ConfigMap test-web",
      "Service test-web",
      "Deployment test-web",
      "ConfigMap test-queue",
      "Deployment test-queue",
      "CronJob test-sweep",
    ],
  );
  for (const one of all) validate(one);
  const [wrong] = all.filter(({ kind }) => kind === "Deployment");
  wrong.spec.template.spec.containers[0].readinessProbe.periodSeconds = "soon";
  assert.throws(() => validate(wrong), /periodSeconds/);
});

test("probes are the kubelet's own, and liveness waits for the start", () => {
  const [web] = manifest("Deployment", "test-web").spec.template.spec.containers;
  assert.deepEqual(web.readinessProbe, {
    httpGet: {
      path: "/readyz",
      port: 9080,
      scheme: "HTTP",
      httpHeaders: [{ name: "x-probe", value: "yes" }],
    },
    initialDelaySeconds: 0,
    periodSeconds: 3,
    timeoutSeconds: 2,
    successThreshold: 1,
    failureThreshold: 3,
  });
  assert.equal(web.livenessProbe.failureThreshold, 4);
  assert.equal(web.startupProbe.failureThreshold, 60);
  const [queue] = manifest("Deployment", "test-queue").spec.template.spec.containers;
  assert.deepEqual(queue.readinessProbe.exec, { command: ["worker", "--ping"] });
  assert.equal(queue.livenessProbe.tcpSocket.port, 7000);
});

test("replicas, limits, stop times and waiting for others are carried over", () => {
  const { replicas, template } = manifest("Deployment", "test-web").spec;
  assert.equal(replicas, 2);
  assert.equal(template.spec.containers[0].resources.limits.memory, "268435456");
  assert.deepEqual(
    template.spec.initContainers.map(({ command }: { command: string[] }) => command.at(-1)),
    ["until nc -z test-database 5433; do sleep 1; done"],
  );
  const { spec } = manifest("StatefulSet", "test-database");
  assert.equal(spec.template.spec.terminationGracePeriodSeconds, 30);
  assert.equal(spec.volumeClaimTemplates[0].metadata.name, "data");
  assert.equal(manifest("Job", "test-migrate").spec.backoffLimit, 3);
  const cron = manifest("CronJob", "test-sweep").spec;
  assert.deepEqual([cron.schedule, cron.timeZone], ["*/30 3 13 * 5", "Europe/Madrid"]);
});

test("no container is root, gains rights, or writes where it was not told to", () => {
  for (const { spec } of manifestsOf(everyDefinition)) {
    const pod = (spec?.jobTemplate?.spec ?? spec)?.template?.spec;
    if (!pod) continue;
    assert.equal(pod.securityContext.runAsNonRoot, true);
    for (const { securityContext } of [...pod.containers, ...(pod.initContainers ?? [])])
      assert.deepEqual(securityContext, {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      });
  }
});

test("arguments and variables come through unchanged, and secrets by reference alone", () => {
  const definition = everyDefinition.find(({ name }) => name === "web");
  assert.ok(definition && definition.kind !== "external" && typeof definition.command !== "string");
  const [web] = manifest("Deployment", "test-web").spec.template.spec.containers;
  const unescaped = web.command.map((word: string) => word.replaceAll("$$", "$"));
  assert.deepEqual(unescaped, ["node", ...definition.command.slice(1)]);
  for (const word of web.command) assert.equal(word.replaceAll("$$", "").includes("$"), false, word);
  assert.equal(manifest("ConfigMap", "test-web").data.GREETING, definition.env?.GREETING);
  assert.deepEqual(web.envFrom, [
    { configMapRef: { name: "test-web" } },
    { secretRef: { name: "test-web" } },
  ]);
  const text = textOf(everyDefinition);
  assert.doesNotMatch(text, /s3cret/);
  assert.match(
    text,
    /^# kubectl create secret generic test-web --from-literal=API_TOKEN=… --from-literal=STORE=…$/m,
  );
});

test("a name longer than Kubernetes takes is cut, and still unlike its neighbour's", () => {
  const long = (end: string) =>
    defineService({ name: `a-service-${"very-".repeat(12)}${end}`, command: ["a"] });
  const names = manifestsOf([long("long"), long("longer")]).map(({ metadata }) => metadata.name);
  assert.equal(new Set(names).size, 2);
  for (const name of names) assert.match(name, /^[a-z0-9][a-z0-9-]{0,50}[a-z0-9]$/);
});

test("what Kubernetes cannot do is listed and stands at the head of the file", () => {
  const { left } = kubernetesManifests(everyDefinition, around);
  for (const what of [
    /^web: waiting until migrate is done/,
    /^web: parts of a second/,
    /^queue: the restart policy never/,
    /^redis: /,
    /^web: a port and a REPLICA number/,
  ])
    assert.ok(
      left.find((line) => what.test(line)),
      String(what),
    );
  const text = textOf(everyDefinition);
  for (const line of left) assert.ok(text.includes(`# - ${line}\n`), line);
});

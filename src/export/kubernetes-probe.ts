import type { IContainer } from "kubernetes-models/v1/Container";
import type { IProbe } from "kubernetes-models/v1/Probe";
import type { ActiveProbe } from "../process-manager/definition.ts";
import { readinessProbe } from "./carried.ts";
import type { Container } from "./container.ts";
import { probeCommand } from "./probe-command.ts";

/** Readiness and liveness as the kubelet asks them; liveness not before the service has had its time to start. */
export function probesOf(
  container: Container,
): Pick<IContainer, "readinessProbe" | "livenessProbe" | "startupProbe"> {
  const { service, image } = container;
  if (image === "postgres")
    return { readinessProbe: { exec: { command: ["pg_isready", "-U", "postgres"] } } };
  const readiness = readinessProbe(service);
  const liveness = service.liveness?.kind === "check" ? undefined : service.liveness;
  const periodSeconds = wholeSeconds(liveness?.periodMs ?? 2_000);
  return {
    ...(readiness ? { readinessProbe: probeOf(readiness, container) } : {}),
    ...(liveness
      ? {
          livenessProbe: { ...probeOf(liveness, container), successThreshold: 1 },
          startupProbe: {
            ...probeOf(liveness, container),
            successThreshold: 1,
            failureThreshold: Math.max(1, Math.ceil(service.startTimeoutMs / 1_000 / periodSeconds)),
          },
        }
      : {}),
  };
}

/** What the kubelet does not look at, a sentence each. */
export function leftOfProbes(container: Container): string[] {
  const { service } = container;
  const probes = [readinessProbe(service), service.liveness].filter(
    (probe) => probe !== null && probe !== undefined,
  );
  const left: string[] = [];
  if (probes.some((probe) => needsNode(probe) && container.image !== "project"))
    left.push("the body or status that its HTTP probe wants; any from 200 to 399 passes");
  if (
    probes.some(({ periodMs = 2_000, timeoutMs = 1_000, initialDelayMs = 0 }) =>
      [periodMs, timeoutMs, initialDelayMs].some((ms) => ms % 1_000 !== 0),
    )
  )
    left.push("parts of a second in the times of its probes; they are rounded up");
  return left;
}

function probeOf(probe: ActiveProbe, container: Container): IProbe {
  const {
    initialDelayMs = 0,
    periodMs = 2_000,
    timeoutMs = 1_000,
    successThreshold = 1,
    failureThreshold = 3,
  } = probe;
  return {
    ...actionOf(probe, container),
    initialDelaySeconds: Math.ceil(initialDelayMs / 1_000),
    periodSeconds: wholeSeconds(periodMs),
    timeoutSeconds: wholeSeconds(timeoutMs),
    successThreshold,
    failureThreshold,
  };
}

/** Asked of the pod from outside where the kubelet can, and by a command inside where it cannot. */
function actionOf(probe: ActiveProbe, { image }: Container): IProbe {
  if (probe.kind === "tcp") {
    const { host, port = 0 } = probe;
    return { tcpSocket: { port, ...(isOwn(host) ? {} : { host }) } };
  }
  if (probe.kind === "http" && !(needsNode(probe) && image === "project")) {
    const { protocol, hostname, port, pathname, search } = new URL(probe.url);
    const headers = Object.entries(probe.headers ?? {}).map(([name, value]) => ({ name, value }));
    return {
      httpGet: {
        path: pathname + search,
        port: Number(port) || (protocol === "https:" ? 443 : 80),
        scheme: protocol === "https:" ? "HTTPS" : "HTTP",
        ...(isOwn(hostname) ? {} : { host: hostname }),
        ...(headers.length > 0 ? { httpHeaders: headers } : {}),
      },
    };
  }
  return { exec: { command: (probeCommand(probe, "node") ?? []).map(escaped) } };
}

/** A word of a command in which the kubelet is to fill in nothing. */
export function escaped(word: string): string {
  return word.replaceAll("$", "$$$$");
}

/** The kubelet's own HTTP probe takes any status from 200 to 399, and no look at the body. */
function needsNode(probe: ActiveProbe): boolean {
  return probe.kind === "http" && (probe.body !== undefined || probe.status !== undefined);
}

function isOwn(host: string | undefined): boolean {
  return host === undefined || /^(127\.|localhost$|::1$|\[::1\]$)/.test(host);
}

function wholeSeconds(milliseconds: number): number {
  return Math.max(1, Math.ceil(milliseconds / 1_000));
}

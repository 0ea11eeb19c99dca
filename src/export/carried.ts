import { type ActiveProbe, type Definition, isAnnouncement } from "../process-manager/definition.ts";
import { type ResolvedService, resolveDefinitions } from "../process-manager/resolve-definitions.ts";

/** All that the manager runs itself, replicas one by one, with what they depend on of each other. */
export function ownServices(definitions: readonly Definition[]): ResolvedService[] {
  const services = resolveDefinitions(definitions).filter(
    (one): one is ResolvedService => one.kind !== "external",
  );
  const names = new Set(services.map(({ name }) => name));
  return services.map((service) => ({
    ...service,
    dependsOn: service.dependsOn.filter(({ name }) => names.has(name)),
  }));
}

/** What asks from outside whether the service is ready; null where only the process or the manager can tell. */
export function readinessProbe({ readiness }: ResolvedService): ActiveProbe | null {
  const probe = isAnnouncement(readiness) ? readiness.watch : readiness;
  return probe && probe.kind !== "check" ? probe : null;
}

/** What is run by others and has no place among another supervisor's services, a sentence each. */
export function leftExternals(definitions: readonly Definition[]): string[] {
  return definitions
    .filter(({ kind }) => kind === "external")
    .map(({ name }) => `${name}: is only watched here, and nobody watches or waits for it there`);
}

/** What no other supervisor does for the service, a sentence each. */
export function leftOfService(service: ResolvedService, name: string): string[] {
  const { readiness, liveness } = service;
  const left: string[] = [];
  if (service.prepare) left.push("what the manager does before each start (a function of its own)");
  if (service.afterReady) left.push("what the manager does after it is ready (a function of its own)");
  if (isAnnouncement(readiness)) {
    const instead = readinessProbe(service)
      ? "its probe is asked in place of it"
      : "it counts as ready at once";
    left.push(`that it says itself when it is ready (${readiness.kind}); ${instead}`);
  }
  if (readiness?.kind === "check" || (isAnnouncement(readiness) && readiness.watch?.kind === "check"))
    left.push("its readiness probe, a function of the manager's own");
  if (liveness?.kind === "check") left.push("its liveness probe, a function of the manager's own");
  if (service.watch) left.push("the restart when its files change");
  return left.map((what) => `${name}: ${what}`);
}

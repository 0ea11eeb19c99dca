import { once } from "node:events";
import { statSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { connect } from "node:net";
import type { Change } from "./change-plan.ts";
import type { LogQuery } from "./control-server.ts";
import { openSocketAddress } from "./control-socket.ts";
import { http } from "./http-module.ts";
import type { LogLine } from "./log-reader.ts";
import {
  messageOf,
  ProcessManagerError,
  type ProcessManagerErrorCode,
  systemCodeOf,
} from "./process-manager-error.ts";
import type { MeasuredService } from "./process-usage.ts";
import type { ServiceEvent, ServiceRecord } from "./service-status.ts";

/** Talks to the manager of a home. Every method throws `not-running` when there is none. */
export class ControlClient {
  readonly #home: string;

  constructor(home: string) {
    this.#home = home;
  }

  /** All services as they are now, and what each uses. */
  async services(): Promise<MeasuredService[]> {
    const { services } = await this.#json<{ services: MeasuredService[] }>("GET", "/services");
    return services;
  }

  /** All that is measured, in Prometheus' text format. */
  async metrics(): Promise<string> {
    return await textOf(await this.#request("GET", "/metrics"));
  }

  /** Resolves when the service is ready; throws `start-failed` with the reason when it does not get there. */
  async start(name: string): Promise<ServiceRecord> {
    return await this.#json("POST", `/services/${encodeURIComponent(name)}/start`);
  }

  async stop(name: string): Promise<ServiceRecord> {
    return await this.#json("POST", `/services/${encodeURIComponent(name)}/stop`);
  }

  /**
   * Resolves when the new process is ready; throws `restart-failed` with the reason. `isRolling` wants no gap: it
   * throws that too where there would be one, and touches nothing.
   */
  async restart(name: string, isRolling = false): Promise<ServiceRecord> {
    return await this.#json("POST", `/services/${encodeURIComponent(name)}/restart?rolling=${isRolling}`);
  }

  /** What `apply` would do. Throws `definition-invalid` with all that is wrong with what is written. */
  async plan(): Promise<Change[]> {
    const { changes } = await this.#json<{ changes: Change[] }>("GET", "/plan");
    return changes;
  }

  /** Makes what runs what is written, and gives what that took; throws as `plan`, and `restart-failed`. */
  async apply(): Promise<Change[]> {
    const { changes } = await this.#json<{ changes: Change[] }>("POST", "/apply");
    return changes;
  }

  /** Runs this many of a service that has replicas. */
  async scale(group: string, replicas: number): Promise<Change[]> {
    const path = `/services/${encodeURIComponent(group)}/scale?replicas=${replicas}`;
    const { changes } = await this.#json<{ changes: Change[] }>("POST", path);
    return changes;
  }

  /** Stops everything and resolves when nothing is left and the home is free. */
  async down(): Promise<ServiceRecord[]> {
    const { services } = await this.#json<{ services: ServiceRecord[] }>("POST", "/stop");
    return services;
  }

  /** Log lines; with `follow` (the default) until the signal aborts or the manager ends. */
  async *logs(query: LogQuery & { signal?: AbortSignal } = {}): AsyncGenerator<LogLine, void> {
    const parameters = new URLSearchParams({
      lines: String(query.tailLines ?? 0),
      follow: String(query.follow ?? true),
      ...(query.service === undefined ? {} : { service: query.service }),
    });
    yield* this.#lines<LogLine>(`/logs?${parameters}`, query.signal);
  }

  /** First all services as they are, then each change. */
  async *events(signal?: AbortSignal): AsyncGenerator<{ services: ServiceRecord[] } | ServiceEvent, void> {
    yield* this.#lines<{ services: ServiceRecord[] } | ServiceEvent>("/events", signal);
  }

  async #json<T>(method: string, path: string): Promise<T> {
    const response = await this.#request(method, path);
    return JSON.parse(await textOf(response));
  }

  async *#lines<T>(path: string, signal?: AbortSignal): AsyncGenerator<T, void> {
    const response = await this.#request("GET", path, signal);
    try {
      // Not node:readline: its iterator never ends when the response is cut off.
      let rest = "";
      for await (const text of response.setEncoding("utf8")) {
        const lines = `${rest}${text}`.split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) yield JSON.parse(line);
      }
    } catch (error) {
      if (!signal?.aborted) throw error;
    } finally {
      response.destroy();
    }
  }

  async #request(method: string, path: string, signal?: AbortSignal): Promise<IncomingMessage> {
    try {
      using address = openSocketAddress(this.#home);
      // Connected by hand: an agent would work out the server's name first, which for a path takes 4 ms.
      const createConnection = () => connect(address.path);
      const options = { createConnection, method, path, ...(signal ? { signal } : {}) };
      const request = http.request(options).end();
      const [response] = (await once(request, "response")) as [IncomingMessage];
      request.on("error", () => undefined); // once there is an answer, a broken connection ends that
      if ((response.statusCode ?? 500) >= 400) throw await problemOf(response);
      return response;
    } catch (error) {
      if (["ENOENT", "ECONNREFUSED", "ENOTDIR"].includes(systemCodeOf(error)))
        throw await this.#unreachable(error);
      if (["EACCES", "EPERM"].includes(systemCodeOf(error))) throw this.#closed(error);
      throw error;
    }
  }

  #closed(cause: unknown): ProcessManagerError {
    const whose = `${this.#home} belongs to ${ownerOf(this.#home)}; ask as that one, or as root`;
    return new ProcessManagerError("control-failed", `${messageOf(cause)}: ${whose}`, { cause });
  }

  async #unreachable(cause: unknown): Promise<ProcessManagerError> {
    const { currentHolder } = await import("./home-lock.ts"); // a station that answers needs none of it
    const holder = await currentHolder(this.#home);
    if (!holder) return new ProcessManagerError("not-running", `no manager runs in ${this.#home}`, { cause });
    const why = "it is just starting or stopping, or its control socket was deleted";
    return new ProcessManagerError(
      "control-failed",
      `${this.#home} is managed by pid ${holder.pid}, which cannot be reached: ${why}; kill ${holder.pid} stops it`,
      { cause },
    );
  }
}

function ownerOf(path: string): string {
  try {
    return `user ${statSync(path).uid}`;
  } catch {
    return "another user";
  }
}

async function problemOf(response: IncomingMessage): Promise<ProcessManagerError> {
  const { code, detail } = JSON.parse(await textOf(response)) as {
    code: ProcessManagerErrorCode;
    detail: string;
  };
  return new ProcessManagerError(code, detail);
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = "";
  response.setEncoding("utf8");
  for await (const part of response) text += part;
  return text;
}

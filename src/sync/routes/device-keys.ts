import { createHash, randomBytes } from "node:crypto";
import type { LocalHandler } from "../../http/local-socket.ts";
import { uuidv7 } from "../../http/uuid.ts";
import type { SyncContext } from "../app.ts";
import type { Project, Reply } from "../project.ts";
import { SyncError } from "../sync-error.ts";
import { troubleOf } from "../trouble.ts";

/** A key with which a device may leave positions in the project; times are RFC 3339. */
export interface DeviceKey {
  readonly id: string;
  /** Key of the device that it may report for; `*` for any. */
  readonly device: string;
  readonly created_at: string;
  readonly revoked_at: string | null;
}

/** A key that was just made: the only time that its secret is seen. */
export interface NewDeviceKey {
  readonly id: string;
  readonly device: string;
  readonly key: string;
}

const listedMax = 1_000;
const columns = "id, device, created_at, revoked_at";

/** `GET /device-keys`: the newest first. */
export function listDeviceKeys({ project }: Pick<SyncContext, "project">): LocalHandler {
  return async ({ signal }) => {
    const query = table(project).select(columns).order("created_at", { ascending: false }).limit(listedMax);
    const rows = succeeded(await project.ask<DeviceKey[]>(query.abortSignal(signal), signal));
    return { device_keys: rows.map((row) => ({ ...row, ...timesOf(row) })) };
  };
}

/** `POST /device-keys {device}`: makes a key, of which the project learns the hash alone. */
export function addDeviceKey({ project }: Pick<SyncContext, "project">): LocalHandler {
  return async ({ body, signal }) => {
    const device = typeof body === "object" && body !== null && "device" in body ? body.device : undefined;
    if (typeof device !== "string" || device.trim() === "" || device.length > 200)
      throw new SyncError(
        "device-invalid",
        "A device's key is needed, of 200 characters at most, or * for any.",
      );
    const key = `pmk_${randomBytes(32).toString("base64url")}`;
    const made = { id: uuidv7(), device: device.trim() };
    const key_hash = createHash("sha256").update(key).digest("hex");
    const insert = table(project).insert({ ...made, key_hash });
    succeeded(await project.ask(insert.abortSignal(signal), signal));
    return { ...made, key } satisfies NewDeviceKey;
  };
}

/** `DELETE /device-keys?id=`: from now on the key opens nothing. Revoking it again changes nothing. */
export function revokeDeviceKey({ project }: Pick<SyncContext, "project">): LocalHandler {
  return async ({ query, signal }) => {
    const id = query.get("id") ?? "";
    if (!/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(id))
      throw new SyncError("device-key-unknown", "There is no device key of that id.");
    const revoked_at = new Date().toISOString();
    const revoke = table(project).update({ revoked_at }).eq("id", id).is("revoked_at", null);
    succeeded(await project.ask(revoke.abortSignal(signal), signal));
    const read = table(project).select(columns).eq("id", id);
    const [row] = succeeded(await project.ask<DeviceKey[]>(read.abortSignal(signal), signal));
    if (!row) throw new SyncError("device-key-unknown", "There is no device key of that id.");
    return { ...row, ...timesOf(row) };
  };
}

function table({ client }: Project) {
  return client.from("device_keys");
}

/** Servers differ in how they write times. */
function timesOf({ created_at, revoked_at }: DeviceKey): Pick<DeviceKey, "created_at" | "revoked_at"> {
  const iso = (time: string) => new Date(time.replace(/([+-]\d\d)$/, "$1:00")).toISOString();
  return { created_at: iso(created_at), revoked_at: revoked_at && iso(revoked_at) };
}

/** Throws `SyncError` `project-unreachable` where the project did not do it. */
function succeeded<T>(reply: Reply<T>): T {
  if (reply.error !== null) throw new SyncError("project-unreachable", `Not done: ${troubleOf(reply)}`);
  return reply.data as T;
}

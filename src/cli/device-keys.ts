import type { Config } from "../config/config.ts";
import { askLocally } from "../http/local-client.ts";
import type { DeviceKey, NewDeviceKey } from "../sync/routes/device-keys.ts";
import { oneLine } from "./plain-text.ts";
import { withSync } from "./sync-service.ts";
import { printTable } from "./table.ts";

/** `pugmark supabase device-key add`: prints the key, which nobody can show again. Exit codes as `withSync`. */
export async function addDeviceKey(config: Config, device: string, json: boolean): Promise<number> {
  return withSync(config, async (socket) => {
    const question = { method: "POST", path: "/device-keys", body: { device } } as const;
    const made = await askLocally<NewDeviceKey>(socket, question);
    if (json) console.log(JSON.stringify(made, null, 2));
    else {
      console.log(made.key);
      const whose = made.device === "*" ? "any device" : oneLine(made.device);
      console.error(`For ${whose}, with the id ${made.id}. It is shown this once: only its hash is kept.`);
    }
    return 0;
  });
}

/** `pugmark supabase device-key list`. */
export async function listDeviceKeys(config: Config, json: boolean): Promise<number> {
  return withSync(config, async (socket) => {
    const question = { method: "GET", path: "/device-keys" } as const;
    const listed = await askLocally<{ device_keys: DeviceKey[] }>(socket, question);
    if (json) console.log(JSON.stringify(listed, null, 2));
    else if (listed.device_keys.length === 0) console.log("There are no device keys.");
    else
      printTable(
        ["id", "device", "made", "revoked"],
        listed.device_keys.map(({ id, device, created_at, revoked_at }) => [
          id,
          oneLine(device),
          local(created_at),
          revoked_at === null ? "" : local(revoked_at),
        ]),
      );
    return 0;
  });
}

/** `pugmark supabase device-key revoke`. */
export async function revokeDeviceKey(config: Config, id: string, json: boolean): Promise<number> {
  return withSync(config, async (socket) => {
    const path = `/device-keys?${new URLSearchParams({ id })}`;
    const revoked = await askLocally<DeviceKey>(socket, { method: "DELETE", path });
    if (json) console.log(JSON.stringify(revoked, null, 2));
    else console.log(`The key of ${oneLine(revoked.device)} opens nothing any more.`);
    return 0;
  });
}

function local(time: string): string {
  return new Date(time).toLocaleString("sv-SE"); // reads like an ISO time
}

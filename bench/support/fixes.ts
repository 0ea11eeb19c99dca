import type { Shot } from "./load.ts";

export const devices = 100;

/** Fix `index` of a run: devices take turns, a second apart. */
export function fix(index: number) {
  const turn = Math.floor(index / devices);
  return {
    device: index % devices,
    seconds: 1_780_000_000 + turn,
    lat: 53 + ((index * 7919) % 10_000) / 100_000,
    lon: 6.5 + ((index * 104_729) % 10_000) / 100_000,
  };
}

/** One by one, as a phone sends them, from that one on. The devices' names begin with that of the run. */
export function singles(count: number, run: string, from = 0): Shot[] {
  return Array.from({ length: count }, (_, index) => {
    const { device, seconds, lat, lon } = fix(from + index);
    const query = `id=${run}-${device}&timestamp=${seconds}&lat=${lat}&lon=${lon}&speed=3.2&bearing=45&altitude=12&accuracy=5&batt=80`;
    return { method: "GET", path: `/ingest/osmand?${query}` };
  });
}

/** So many fixes in all, so many in each request. */
export function batches(count: number, size: number, run: string, from = 0): Shot[] {
  return Array.from({ length: Math.ceil(count / size) }, (_, batch) => {
    const positions = Array.from({ length: size }, (_, index) => {
      const { device, seconds, lat, lon } = fix(from + batch * size + index);
      const time = new Date(seconds * 1000).toISOString();
      return {
        device: `${run}-${device}`,
        time,
        lat,
        lon,
        speed_mps: 1.6,
        heading_deg: 45,
        altitude_m: 12,
        accuracy_m: 5,
      };
    });
    const headers = { "content-type": "application/json" };
    return { method: "POST", path: "/api/v1/positions", headers, body: JSON.stringify(positions) };
  });
}

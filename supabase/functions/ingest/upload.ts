import {
  decodeOsmandReport,
  nothingToStore,
  type OsmandReport,
  parametersOf,
} from "../../../src/tracking/decoders/osmand.ts";
import { type DecodedItems, decodeItems, itemsOf } from "../../../src/tracking/decoders/positions-json.ts";
import { isRejection } from "../../../src/tracking/fix.ts";
import { Refusal } from "./refusal.ts";

/** Less than at a station: a function has a short time and little memory for each request. */
const bodyMaxBytes = 2 * 1024 * 1024;
const itemsMax = 2_000;

/** What a request brings, and how its sender is to be answered. */
export interface Upload extends DecodedItems {
  /** `silent`: with an empty body, as phone apps expect. */
  readonly answer: "silent" | "counts";
}

/**
 * Reads a request in the wire format that its path names, as a station's API reads it.
 * Throws `Refusal`.
 */
export async function readUpload(request: Request, format: string, nowMs: number): Promise<Upload> {
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    throw new Refusal("media-type-unsupported", "Bodies are taken as they are, not compressed.");
  }
  const isPost = request.method === "POST";
  if (format === "osmand" && (isPost || request.method === "GET")) return await readOsmand(request, nowMs);
  if ((format === "positions" || format === "geojson") && isPost) return await readPositions(request, nowMs);
  throw new Refusal(
    "route-unknown",
    "There are POST ingest/positions, POST ingest/geojson, and GET and POST ingest/osmand.",
  );
}

async function readOsmand(request: Request, nowMs: number): Promise<Upload> {
  const decoded = decodeOsmandReport(await osmandReport(request), nowMs);
  if (decoded === nothingToStore) return { fixes: [], rejected: [], answer: "silent" };
  if (isRejection(decoded)) throw new Refusal(decoded.code, `Not stored: ${decoded.detail}.`);
  return { fixes: [decoded], rejected: [], answer: "silent" };
}

async function osmandReport(request: Request): Promise<OsmandReport> {
  const query = parametersOf(new URL(request.url).searchParams);
  const body = request.method === "POST" ? await textOf(request) : "";
  if (body === "") return { query };
  switch (mediaTypeOf(request)) {
    case "application/json":
      return { query, json: jsonOf(body) };
    case "application/x-www-form-urlencoded":
      return { query, form: parametersOf(body) };
    case "text/plain":
      // It has no fields: what such a report says is in its query.
      return { query };
    default:
      throw new Refusal("media-type-unsupported", "A report is a form, JSON, or a query.");
  }
}

async function readPositions(request: Request, nowMs: number): Promise<Upload> {
  if (!["application/json", "application/geo+json"].includes(mediaTypeOf(request))) {
    throw new Refusal("media-type-unsupported", "Send application/json or application/geo+json.");
  }
  const items = itemsOf(jsonOf(await textOf(request)));
  if (!items) {
    throw new Refusal(
      "body-unrecognised",
      "The body is none of these: a position, an array of positions, a GeoJSON Feature, a FeatureCollection.",
    );
  }
  if (items.length > itemsMax) {
    throw new Refusal("too-many-positions", `A request may have ${itemsMax} positions, not ${items.length}.`);
  }
  return { ...decodeItems(items, nowMs), answer: "counts" };
}

function mediaTypeOf(request: Request): string {
  return (request.headers.get("content-type") ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

/** Reads no further than the bound, whatever length was promised. */
async function textOf(request: Request): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  let text = "";
  try {
    for await (const chunk of request.body ?? []) {
      bytes += chunk.length;
      if (bytes > bodyMaxBytes) throw new Refusal("body-too-large", `A body may have ${bodyMaxBytes} bytes.`);
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal("request-invalid", "The body broke off, or is not UTF-8.");
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text, (name, value) => {
      // It would reach an object's prototype where properties are copied.
      if (name === "__proto__") throw new SyntaxError("__proto__");
      return value;
    });
  } catch {
    throw new Refusal("request-invalid", "The body is not JSON.");
  }
}

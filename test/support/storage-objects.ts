import { createHash } from "node:crypto";
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import type { App } from "@supabase/lite";

type Objects = NonNullable<App["_storageAdapter"]>;

/** What a test project's Storage keeps its objects by: a file for each, in the folder of its bucket. */
export function objectsIn(folder: string): Objects {
  const fileOf = (bucket: string, name: string) => join(folder, bucket, name);
  const metadataOf = (bytes: Uint8Array, mimetype: string, lastModified: Date) => ({
    ...{ cacheControl: "no-cache", mimetype, lastModified },
    ...{ contentLength: bytes.length, size: bytes.length },
    eTag: `"${createHash("md5").update(bytes).digest("hex")}"`,
  });
  const read = async (bucket: string, name: string) => {
    const bytes = await readFile(fileOf(bucket, name));
    const { mtime } = await stat(fileOf(bucket, name));
    return { bytes, metadata: metadataOf(bytes, "application/octet-stream", mtime) };
  };
  const unused = () => Promise.reject(new Error("no test needs this"));
  return {
    driver: folder,
    uploadObject: async (bucket, name, _version, body, type) => {
      const bytes = await buffer(body as AsyncIterable<Uint8Array>);
      await mkdir(dirname(fileOf(bucket, name)), { recursive: true });
      await writeFile(fileOf(bucket, name), bytes);
      return metadataOf(bytes, type, new Date());
    },
    getObject: async (bucket, name) => {
      const { bytes, metadata } = await read(bucket, name);
      return { metadata, httpStatusCode: 200, body: bytes };
    },
    headObject: async (bucket, name) => (await read(bucket, name)).metadata,
    deleteObject: (bucket, name) => rm(fileOf(bucket, name), { force: true }),
    deleteObjects: async (bucket, names) => {
      for (const name of names) await rm(fileOf(bucket, name), { force: true });
    },
    copyObject: unused,
    privateAssetUrl: unused,
  };
}

import type { Log } from "../http/log.ts";
import type { PhotoStore } from "../store/photos.ts";

const everyMs = 60 * 60_000;
/** Longer than any request: what is older is not on its way to a row. */
const ageMs = 60 * 60_000;

/** Removes files that no photo has, now and every hour, until it is disposed of. */
export function sweepPhotos(
  photos: Pick<PhotoStore, "sweep">,
  log: Pick<Log, "info" | "warn">,
): AsyncDisposable {
  const sweep = async () => {
    try {
      const files = await photos.sweep(Date.now() - ageMs);
      if (files > 0) log.info({ files }, "files that no photo has are removed");
    } catch (error) {
      log.warn({ err: error }, "files that no photo has could not be looked for");
    }
  };
  let under = sweep();
  const timer = setInterval(() => {
    under = under.then(sweep);
  }, everyMs).unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await under;
    },
  };
}

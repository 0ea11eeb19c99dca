import { createRequire, registerHooks } from "node:module";
import { pathToFileURL } from "node:url";

const definitions = new URL("./define-services.ts", import.meta.url).href;
const { cache } = createRequire(import.meta.url);

let loads = 0;

/**
 * The default export of a module as its text is now, and as the text of what it imports of its project is; packages are
 * loaded once. It may import "pugmark" wherever it is. Each call keeps memory for good: modules are never unloaded.
 */
export async function importFresh(path: string): Promise<unknown> {
  const version = `?load=${++loads}`;
  const isOfProject = (url: string): boolean => url.startsWith("file:") && !url.includes("/node_modules/");
  for (const key of Object.keys(cache)) if (isOfProject(pathToFileURL(key).href)) delete cache[key];
  const hooks = registerHooks({
    resolve: (specifier, context, next) => {
      if (specifier === "pugmark") return { url: definitions, shortCircuit: true };
      const found = next(specifier, context);
      const isFresh = context.parentURL?.endsWith(version) && isOfProject(found.url);
      return isFresh ? { ...found, url: `${found.url}${version}` } : found;
    },
  });
  try {
    const module = await import(`${pathToFileURL(path).href}${version}`);
    return module.default;
  } finally {
    hooks.deregister();
  }
}

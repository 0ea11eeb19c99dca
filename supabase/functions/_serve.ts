// Serves the functions of this folder as a project does, each under /functions/v1/NAME, for one's own machine: all in one
// process, with nothing between them. Arguments: the address and the port to listen on. docs/functions.md

type Handler = (request: Request, info: unknown) => Response | Promise<Response>;

/** A function that could not be loaded has none. */
const handlers = new Map<string, Handler | undefined>();
const listen = Deno.serve;

for (const { name, isDirectory } of Deno.readDirSync(new URL(".", import.meta.url))) {
  if (!isDirectory || !/^[a-z][\w-]*$/i.test(name)) continue;
  Object.defineProperty(Deno, "serve", {
    configurable: true,
    value: (...given: readonly unknown[]) => {
      handlers.set(name, given.find((argument) => typeof argument === "function") as Handler);
    },
  });
  try {
    handlers.set(name, undefined);
    await import(new URL(`${name}/index.ts`, import.meta.url).href);
  } catch (error) {
    console.error(`${name} did not start:`, error);
  }
}

/** A web page elsewhere can point its own name at this machine, and only the Host header tells. Addresses cannot be re-pointed. */
const ownName = /^(localhost|[\d.]+|\[[\da-f:.]+\])(:\d{1,5})?$/i;

const [hostname = "127.0.0.1", port = "0"] = Deno.args;
listen({ hostname, port: Number(port), onListen: announce }, async (request, info) => {
  if (!ownName.test(request.headers.get("host") ?? "")) {
    return refuse(403, "HOST_FOREIGN", "Functions do not answer under that host name here");
  }
  const url = new URL(request.url);
  if (url.pathname === "/livez") return new Response("ok");
  const [, path = "", name = ""] = /^\/functions\/v1(\/([^/]+).*)$/.exec(url.pathname) ?? [];
  if (!handlers.has(name)) return refuse(404, "NOT_FOUND", "Requested function was not found");
  const handler = handlers.get(name);
  if (!handler) return refuse(503, "BOOT_ERROR", "Function failed to start (please check logs)");
  url.pathname = path;
  try {
    return await handler(new Request(url, request), info);
  } catch (error) {
    console.error(`${name}:`, error);
    return refuse(500, "WORKER_ERROR", "Function exited due to an error (please check logs)");
  }
});

function announce(address: { hostname: string; port: number }): void {
  console.log(`functions ${[...handlers.keys()].sort().join(", ")} at port ${address.port}`);
}

/** In the words of a project. */
function refuse(status: number, code: string, message: string): Response {
  return Response.json({ code, message }, { status });
}

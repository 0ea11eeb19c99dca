// The least that Fastify and undici do to pass a call on: nothing is checked, kept or noted.
//
//   node floor-server.ts PORT LM-STUDIO
import fastify from "fastify";
import { Pool } from "undici";

const [port, lmStudio = ""] = process.argv.slice(2);
const pool = new Pool(lmStudio, { connections: 256, headersTimeout: 0, bodyTimeout: 0 });
const app = fastify();
app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) =>
  done(null, body),
);
app.get("/", () => ({}));
app.post("/v1/*", async ({ url, body }, reply) => {
  const stop = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) stop.abort();
  });
  const headers = { "content-type": "application/json" };
  const options = { method: "POST", path: url, headers, body: body as Buffer, signal: stop.signal } as const;
  const answer = await pool.request(options);
  reply.code(answer.statusCode).type(String(answer.headers["content-type"]));
  return reply.send(answer.body);
});
await app.listen({ port: Number(port), host: "127.0.0.1" });

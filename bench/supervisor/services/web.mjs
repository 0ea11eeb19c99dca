// A small HTTP server: GET / answers, after GET /stall nothing does though the process lives. CHATTY=1 prints ten lines
// a second. Listens on the socket that it is handed (systemd's protocol), else on PORT.
import { createServer } from "node:http";

let isStalled = false;
const server = createServer((request, response) => {
  if (request.url === "/stall") {
    isStalled = true;
    response.end("stalled\n");
  } else if (!isStalled) response.end(`${process.pid}\n`);
});
const where = process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: "127.0.0.1" };
server.listen(where, () => process.send?.("ready"));
process.on("SIGTERM", () => process.exit(0));
if (process.env.CHATTY) setInterval(() => console.log("still here"), 100);

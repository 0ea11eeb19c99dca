import http from "node:http";

/**
 * The program that every service of the fault test runs. It serves `/who` on its held socket or its `PORT`, and is
 * told through the Unix socket `$FOLDER/control-PID` what to suffer: `/flood?lines=`, `/fork`, `/hang`, `/exit?code=`.
 * Each line that it prints has its life, its stream and a number, counted for each stream from 1.
 * Where it starts to serve while another process of the same service still does, it says so in `$FOLDER/overlaps`.
 */
export const faultProgram = `
const fs = require("node:fs");
const http = require("node:http");
const { spawn } = require("node:child_process");
const { FOLDER, ROLE, PORT, LISTEN_FDS, NOTIFY_FD } = process.env;
const { PROCESS_MANAGER_LIFE: life, PROCESS_MANAGER_SERVICE: name } = process.env;
const printed = { stdout: 0, stderr: 0 };
const print = (stream, end = "\\n") => {
  const number = ++printed[stream];
  // Straight to the descriptor: when this returns, the line is in the pipe, whatever happens to us next.
  const line = \`\${life} \${stream} \${number} \${"x".repeat(number % 61)}\${end}\`;
  for (let isWritten = false; !isWritten; ) {
    try {
      fs.writeSync(stream === "stdout" ? 1 : 2, line);
      isWritten = true;
    } catch (error) {
      if (error.code !== "EAGAIN") throw error; // the pipe is full, and nothing of the line is in it
    }
  }
};
const flood = (lines) => {
  for (let line = 0; line < lines; line += 1) print(line % 3 === 0 ? "stderr" : "stdout");
};
const noteOverlap = () => {
  const folder = \`\${FOLDER}/instances-\${name}\`;
  fs.mkdirSync(folder, { recursive: true });
  for (const other of fs.readdirSync(folder)) {
    try {
      process.kill(Number(other), 0);
      fs.appendFileSync(\`\${FOLDER}/overlaps\`, \`\${name} \${other} \${process.pid}\\n\`);
    } catch {
      fs.rmSync(\`\${folder}/\${other}\`, { force: true });
    }
  }
  fs.writeFileSync(\`\${folder}/\${process.pid}\`, "");
};
const fork = () => {
  // In our group and holding our output; in a session of its own; and one whose parent is gone.
  spawn("sleep", ["1000"], { stdio: "inherit" });
  spawn("sleep", ["1000"], { stdio: ["ignore", "inherit", "ignore"], detached: true });
  spawn("/bin/sh", ["-c", "sleep 1000 & sleep 1000 & echo forked"], {
    stdio: ["ignore", "pipe", "ignore"],
    detached: true,
  }).stdout.once("data", () => undefined);
};
const who = (response) => response.end(JSON.stringify({ pid: process.pid, life, printed }));
const commands = {
  "/who": () => undefined,
  "/flood": (size) => flood(size),
  "/fork": fork,
  "/hang": () => { for (;;); },
  "/exit": (size) => { print("stdout", ""); process.exit(size); },
};
const control = http.createServer((request, response) => {
  const url = new URL(request.url, "http://control");
  response.setHeader("connection", "close");
  commands[url.pathname](Number(url.searchParams.get("size")));
  who(response);
});
const ready = () => {
  if (NOTIFY_FD) fs.writeSync(Number(NOTIFY_FD), "READY=1\\n");
  print("stdout"); // the second line: some are ready by it
};
print("stdout");
if (fs.existsSync(\`\${FOLDER}/broken-\${name}\`)) process.exit(7);
if (ROLE === "task") {
  flood(100);
  process.exit(0);
}
noteOverlap();
const server = http.createServer((request, response) => {
  response.setHeader("connection", "close");
  who(response);
});
process.on("SIGTERM", () => {
  if (ROLE === "deaf") return;
  control.close();
  if (server.listening) server.close(() => process.exit(0));
  else process.exit(0);
});
control.listen(\`\${FOLDER}/control-\${process.pid}\`, () => {
  if (LISTEN_FDS) server.listen({ fd: 3 }, ready);
  else if (PORT) server.listen(Number(PORT), "127.0.0.1", ready);
  else ready();
});
`;

/** What the program says of itself: the lines it has printed are counted for each stream. */
export interface Answer {
  readonly pid: number;
  readonly life: string;
  readonly printed: Readonly<Record<"stdout" | "stderr", number>>;
}

/** Asks the program, on a port or on its control socket; rejects when it is not there or dies meanwhile. */
export function askProgram(where: { readonly port: number } | { readonly socketPath: string }, path: string) {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const request = http.get(
    { ...where, host: "127.0.0.1", path, agent: false, timeout: 15_000 },
    (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (more: string) => {
        text += more;
      });
      response.on("end", () => resolve(JSON.parse(text))).on("error", reject);
    },
  );
  request.on("error", reject);
  request.on("timeout", () => request.destroy(new Error(`no answer to ${path}`)));
  return promise;
}

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../../test/support/ports.ts";
import { type Gateway, startProgram } from "./gateway.ts";

/** nginx passing calls on, unbuffered: as little as a proxy can do. */
export const nginx: Gateway = {
  title: "nginx, passing on",
  version,
  start: (lmStudio) => start(lmStudio, "proxy_buffering off;"),
};

/** nginx with its cache, which POSTs have to be told to use, and its lock that lets identical calls wait for one. */
export const nginxCache: Gateway = {
  title: "nginx, proxy_cache",
  version,
  start: (lmStudio) =>
    start(
      lmStudio,
      `proxy_cache answers; proxy_cache_methods POST; proxy_cache_key "$request_uri|$request_body"; proxy_cache_valid 200 10m;
      proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s; proxy_ignore_headers Cache-Control;`,
    ),
};

async function version(): ReturnType<Gateway["version"]> {
  const { error, stderr } = spawnSync("nginx", ["-v"], { encoding: "utf8" });
  if (error) return { missing: "apt-get install nginx-light" };
  return { version: /nginx\/(\S+)/.exec(stderr)?.[1] ?? "?" };
}

async function start(lmStudio: string, settings: string) {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-nginx-"));
  const port = await freePort();
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${name};`,
  );
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; ${paths.join(" ")}
  client_max_body_size 16m; client_body_buffer_size 1m; keepalive_requests 100000000;
  proxy_cache_path cache keys_zone=answers:32m max_size=512m use_temp_path=off;
  upstream lm_studio { server ${new URL(lmStudio).host}; keepalive 256; keepalive_timeout 4s; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s; ${settings}
      proxy_pass http://lm_studio;
    }
  }
}
`,
  );
  // Its worker drops root's rights, and then could write nowhere in a folder of root's.
  const user = process.getuid?.() === 0 ? ["-g", "user root;"] : [];
  const command = ["nginx", "-p", folder, "-e", "stderr", "-c", join(folder, "nginx.conf"), ...user] as const;
  const running = await startProgram(command, `http://127.0.0.1:${port}`);
  return {
    ...running,
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

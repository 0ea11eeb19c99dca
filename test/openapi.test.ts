import assert from "node:assert/strict";
import { test } from "node:test";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import { createAgent } from "../src/agent/app.ts";
import { Chat } from "../src/agent/chat.ts";
import { createApi } from "../src/api/app.ts";
import { createChat } from "../src/chat/app.ts";
import { loadConfig } from "../src/config/config.ts";
import type { App } from "../src/http/app.ts";
import { openPool } from "../src/store/pool.ts";

const { config } = loadConfig({ LOG_LEVEL: "fatal" }, "/nowhere/.env");
// A description needs no database: nothing connects before it is asked to.
const pool = openPool({ url: "postgres://nobody@127.0.0.1:1/nothing", name: "openapi" });

const servers: Readonly<Record<string, () => Promise<App>>> = {
  api: () => createApi({ config, pool }),
  chat: () => createChat({ config, pool }),
  agent: () => createAgent({ config, pool, chat: new Chat({ url: "http://127.0.0.1:1", key: undefined }) }),
};

for (const [name, create] of Object.entries(servers)) {
  test(`the ${name} server's OpenAPI description is valid, complete and without a warning`, async () => {
    const app = await create();
    const { statusCode, body } = await app.inject({ url: "/openapi.json", headers: { host: "localhost" } });
    assert.equal(statusCode, 200);
    const findings = await lintFromString({
      source: body,
      absoluteRef: `${name}.json`,
      config: await createConfig({
        extends: ["recommended"],
        rules: {
          // A station is reached at localhost, and asks for a key only where it has any.
          "no-server-example.com": "off",
          "security-defined": "off",
          // Health and documentation have no way to fail by what the caller sent.
          "operation-4xx-response": { severity: "error", excludePaths: [] },
        },
      }),
    });
    const said = findings.map(
      ({ ruleId, message, location }) => `${ruleId}: ${message} ${location[0]?.pointer}`,
    );
    assert.deepEqual(said, []);
    await app.close();
  });

  test(`every route of the ${name} server is described, and every description says how it fails`, async () => {
    const app = await create();
    await app.ready();
    const { paths = {} } = app.swagger() as {
      paths?: Record<string, Record<string, { summary?: string; operationId?: string }>>;
    };
    const ids = Object.values(paths).flatMap((path) =>
      Object.values(path).map(({ operationId }) => operationId),
    );
    assert.ok(ids.length > 3);
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.every(Boolean));
    await app.close();
  });
}

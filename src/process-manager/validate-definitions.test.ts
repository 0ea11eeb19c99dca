import assert from "node:assert/strict";
import { test } from "node:test";
import type { Definition } from "./definition.ts";
import { resolveDefinitions } from "./resolve-definitions.ts";
import { dependants, startOrder } from "./start-order.ts";
import { validateDefinitions } from "./validate-definitions.ts";

const command = ["true"] as const;

test("everything wrong with the definitions is named in one error", async () => {
  const listen = { host: "127.0.0.1", port: 5001 };
  const definitions: Definition[] = [
    { name: "Api", command },
    { name: "chat", command, listen, portHint: "CHAT_PORT" },
    { name: "chat", command },
    {
      name: "agent",
      command,
      listen: { host: "0.0.0.0", port: 5001 },
      portHint: "PORT",
      dependsOn: ["nobody"],
    },
    { name: "one", command, dependsOn: ["two"] },
    { name: "two", command, dependsOn: ["one"] },
    { name: "odd", command, listen: { host: "127.0.0.1", port: 70_000 }, stop: { timeoutMs: Number.NaN } },
    { name: "manager", command },
    { name: "endless", command, dependsOn: { one: "completed" } },
  ];
  await assert.rejects(validateDefinitions(definitions), {
    code: "definition-invalid",
    message: [
      '"Api" is no name: lower-case letters, digits and dashes',
      'the name "chat" is used twice',
      `the name "manager" is the manager's own`,
      "odd listens on 70000, which is no port",
      "odd has timeoutMs NaN",
      "agent depends on nobody, which is not defined",
      "endless waits for one to be completed, which only a task ever is",
      "one depends on itself: one → two → one",
      "chat and agent both listen on port 5001 (set CHAT_PORT or PORT)",
    ].join("; "),
  });
});

test("dependencies come before what depends on them, and only those that are needed", async () => {
  const definitions: Definition[] = [
    { name: "agent", command, dependsOn: ["chat", "database"] },
    { name: "chat", command, dependsOn: ["database"] },
    { name: "database", command },
    { name: "api", command },
  ];
  await validateDefinitions(definitions);
  const resolved = resolveDefinitions(definitions);
  const names = (of?: string[]): string[] => startOrder(resolved, of).map((definition) => definition.name);
  assert.deepEqual(names(), ["database", "chat", "agent", "api"]);
  assert.deepEqual(names(["chat"]), ["database", "chat"]);
  assert.deepEqual(dependants(resolved).get("database"), ["agent", "chat"]);
});

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import type { ServiceDefinition } from "../definition.ts";
import { readServicesFile } from "./services-file.ts";

/** A project with these files; gives its folder. */
async function project(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "services-file-"));
  t.after(() => rm(folder, { recursive: true }));
  await write(folder, files);
  return folder;
}

async function write(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
}

/** What is wrong with the file, a line each, without its path. */
async function complaints(folder: string, name: string): Promise<string[]> {
  const path = join(folder, name);
  try {
    await readServicesFile(path);
  } catch (error) {
    assert.equal((error as { code?: string }).code, "definition-invalid");
    return (error as Error).message.replaceAll(path, "").split("\n");
  }
  return [];
}

async function services(path: string): Promise<Record<string, ServiceDefinition>> {
  const { definitions } = await readServicesFile(path);
  return Object.fromEntries(
    definitions.map((definition) => [definition.name, definition as ServiceDefinition]),
  );
}

test("YAML, JSON and TypeScript say the same", async (t) => {
  const entry = {
    command: ["node", "web.js"],
    listen: { port: 8080, hold: true },
    dependsOn: { db: "started" },
  };
  const file = { services: { web: entry, db: { kind: "external", probe: { kind: "tcp", port: 5432 } } } };
  const folder = await project(t, {
    "a.json": JSON.stringify(file),
    "a.yaml": `
services:
  web:
    command: [node, web.js]
    listen: { port: 8080, hold: true }
    dependsOn: { db: started }
  db:
    kind: external
    probe: { kind: tcp, port: 5432 }
`,
    "a.ts": `import { defineServices } from "pugmark"; export default defineServices(${JSON.stringify(file)});`,
  });
  const json = await readServicesFile(join(folder, "a.json"));
  assert.deepEqual(json.definitions, [
    { ...entry, name: "web", cwd: folder, env: {} },
    { kind: "external", name: "db", probe: { kind: "tcp", port: 5432 } },
  ]);
  assert.deepEqual(await readServicesFile(join(folder, "a.yaml")), json);
  assert.deepEqual(await readServicesFile(join(folder, "a.ts")), json);
});

test("everything wrong with a YAML file is told at once, each with its line, column and field", async (t) => {
  const folder = await project(t, {
    "a.yaml": `servces: {}
services:
  web:
    command: node web.js
    readyness: { kind: http, url: / }
    env: { RETRIES: 3 }
    liveness: { kind: htp, url: / }
    restart:
      policy: onfailure
  worker:
    cwd: worker
`,
  });
  assert.deepEqual(await complaints(folder, "a.yaml"), [
    ":1:1: servces is not known; did you mean `services`?",
    ":5:5: services.web.readyness is not known; did you mean `readiness`?",
    ":6:21: services.web.env.RETRIES must be text, not 3",
    ":7:23: services.web.liveness.kind must be one of http, tcp, exec, check; did you mean `http`?",
    ":9:15: services.web.restart.policy must be one of always, on-failure, never; did you mean `on-failure`?",
    ":11:5: services.worker must have command",
  ]);
});

test("everything wrong with a JSON file is told at once, each with its line, column and field", async (t) => {
  const folder = await project(t, {
    "a.json": `{
\t"services": {
\t\t"web": { "command": "x", "listen": { "port": "80" } },
\t\t"Web": { "command": [] }
\t}
}`,
  });
  assert.deepEqual(await complaints(folder, "a.json"), [
    ':3:48: services.web.listen.port must be a whole number, not "80"',
    ":4:3: services.Web must match ^[a-z][a-z0-9-]*$",
    ":4:23: services.Web.command must have at least 1 entry",
  ]);
});

test("what contradicts itself is told with the place of its service", async (t) => {
  const text = JSON.stringify({
    services: { a: { command: "x", dependsOn: ["b"] }, c: { command: "x", schedule: "x" } },
  });
  const folder = await project(t, { "a.json": text });
  assert.deepEqual(await complaints(folder, "a.json"), [
    ":1:14: services.a depends on b, which is not defined",
    ":1:52: services.c has a schedule, which only a task (kind: task) can have",
  ]);
});

test("a key that is there twice is an error, in JSON and in YAML", async (t) => {
  const folder = await project(t, {
    "a.json": `{ "services": {\n  "a": { "command": "x" },\n  "a": { "command": "y" } } }`,
    "a.yaml": `services:\n  a: { command: x }\n  a: { command: y }\n`,
  });
  assert.deepEqual(await complaints(folder, "a.json"), [':3:3: the key "a" is there twice']);
  assert.deepEqual(await complaints(folder, "a.yaml"), [":3:3: Map keys must be unique"]);
});

test("what cannot be read is told with its place", async (t) => {
  const folder = await project(t, {
    "a.json": `{ "services": {\n  "a": { "command": 'x' } } }`,
    "b.json": `{ "services": { "a": "x`,
    "c.json": `{ "services": { }, }`,
    "d.json": "",
    "a.yaml": "services:\n  a: [x\n",
    "b.yaml":
      "x: &x [1]\ny: &y [*x, *x, *x, *x, *x, *x, *x, *x, *x, *x]\nz: &z [*y, *y, *y, *y, *y, *y, *y, *y, *y]\nservices: [*z, *z]\n",
    "a.txt": "",
  });
  assert.deepEqual(await complaints(folder, "a.json"), [":2:21: a value should be here, not 'x'"]);
  assert.deepEqual(await complaints(folder, "b.json"), [":1:22: this text in quotes has no end"]);
  assert.deepEqual(await complaints(folder, "c.json"), [":1:20: a key should be here, not }"]);
  assert.deepEqual(await complaints(folder, "d.json"), [
    ":1:1: a value should be here, not the end of the file",
  ]);
  assert.match((await complaints(folder, "a.yaml")).join("\n"), /^:\d:\d+: /);
  assert.match((await complaints(folder, "b.yaml")).join("\n"), /alias/);
  assert.match((await complaints(folder, "a.txt")).join("\n"), /is no services file/);
  assert.match((await complaints(folder, "none.json")).join("\n"), /cannot be read: ENOENT/);
});

test("a wrong TypeScript file is told by service and field, and a broken one by its own error", async (t) => {
  const folder = await project(t, {
    "a.ts": `export default { services: { web: { comand: "x", prepare: "y" } } };`,
    "b.ts": `throw new Error("no luck today"); export default {};`,
  });
  assert.deepEqual(await complaints(folder, "a.ts"), [
    ": services.web must have command",
    ": services.web.comand is not known; did you mean `command`?",
    ": services.web.prepare must be a function, which only a TypeScript or JavaScript file can hold",
  ]);
  assert.match((await complaints(folder, "b.ts")).join("\n"), /no luck today/);
});

test("a file that was edited is read anew, with what it imports", async (t) => {
  const module = (name: string): string =>
    `import { command } from ${name}; export default { services: { a: { command } } };`;
  const folder = await project(t, {
    "a.ts": module('"./command.ts"'),
    "a.cjs": `module.exports = { services: { a: { command: require("./command.cjs") } } };`,
    "command.ts": `export const command: string = "one";`,
    "command.cjs": `module.exports = "one";`,
  });
  const commands = async (): Promise<unknown[]> =>
    await Promise.all(["a.ts", "a.cjs"].map(async (name) => (await services(join(folder, name))).a?.command));
  assert.deepEqual(await commands(), ["one", "one"]);
  await write(folder, {
    "command.ts": `export const command: string = "two";`,
    "command.cjs": `module.exports = "two";`,
  });
  assert.deepEqual(await commands(), ["two", "two"]);
});

test("variables: the file's, then those of the service; of files the last, and before them what is written out", async (t) => {
  const folder = await project(t, {
    "a.json": JSON.stringify({
      env: { A: "file", B: "file", C: "file" },
      envFiles: ["shared.env"],
      services: {
        web: {
          command: "x",
          cwd: "web",
          envFiles: ["web/one.env", "web/two.env?", "gone.env?"],
          env: { C: "own" },
        },
        listener: { command: "x", listen: { port: 8080 } },
      },
    }),
    "shared.env": "A=shared\nD=shared\nPORT=3000\n",
    "web/one.env": "B=one\nE=one\n",
    "web/two.env": 'E="two words" # why\n',
  });
  const { web, listener } = await services(join(folder, "a.json"));
  assert.equal(web?.cwd, join(folder, "web"));
  assert.deepEqual(web?.env, { A: "file", B: "one", C: "own", D: "shared", E: "two words", PORT: "3000" });
  assert.equal("PORT" in (listener?.env ?? {}), false, "PORT is where it listens");
});

test("a file says what all logs together may take", async (t) => {
  const folder = await project(t, {
    "a.yaml": "logsMaxBytes: 5000000\nservices: { a: { command: x } }\n",
    "b.yaml": "logsMaxBytes: 5\nservices: { a: { command: x } }\n",
  });
  assert.equal((await readServicesFile(join(folder, "a.yaml"))).logsMaxBytes, 5_000_000);
  assert.deepEqual(await complaints(folder, "b.yaml"), [":1:15: logsMaxBytes must be 1048576 or more"]);
});

test("a missing file of variables is an error with its place", async (t) => {
  const text = `services:\n  a:\n    command: x\n    envFiles: [there?, gone.env]\n`;
  const folder = await project(t, { "a.yaml": text });
  const [only, ...others] = await complaints(folder, "a.yaml");
  assert.match(only ?? "", /^:4:24: services\.a\.envFiles\.1 cannot be read: ENOENT/);
  assert.deepEqual(others, []);
});

test("a line of a file of variables that says none is an error with its number", async (t) => {
  const folder = await project(t, {
    "a.yaml": "envFiles: [a.env]\nservices: { a: { command: x } }\n",
    "a.env": `A=1\n# B\n\nexport C = 2\nD="several\nlines" # d\nE=it's\r\nF 3\nG=''\n=4\n`,
  });
  assert.deepEqual(await complaints(folder, "a.yaml"), [
    ":1:12: envFiles.0 is wrong in line 8: NAME=value is expected",
    ":1:12: envFiles.0 is wrong in line 10: NAME=value is expected",
  ]);
});

test("a Procfile is taken as it is: by the shell, with a PORT for each, and the .env beside it", async (t) => {
  const folder = await project(t, {
    Procfile: "# all of it\nweb: bundle exec rails -p $PORT\n\nWorker_1:   rake jobs:work\r\n",
    ".env": "RAILS_ENV=development\n",
  });
  assert.deepEqual(await services(join(folder, "Procfile")), {
    web: {
      name: "web",
      command: "bundle exec rails -p $PORT",
      cwd: folder,
      env: { RAILS_ENV: "development", PORT: "5000" },
    },
    "worker-1": {
      name: "worker-1",
      command: "rake jobs:work",
      cwd: folder,
      env: { RAILS_ENV: "development", PORT: "5100" },
    },
  });
  await write(folder, { Procfile: "web: x\nWEB: y\nwhat is this\n" });
  assert.deepEqual(await complaints(folder, "Procfile"), [
    ":2:1: the name web is there twice",
    ":3:1: should be `name: command line`",
  ]);
});

test("the examples of the documentation are right, and it names every field", async (t) => {
  const root = join(import.meta.dirname, "..", "..", "..");
  const page = await readFile(join(root, "docs", "process-manager.md"), "utf8");
  const examples = [...page.matchAll(/```(yaml|ts)\n(.*?)```/gs)].filter(([block]) =>
    block.includes("services:"),
  );
  assert.equal(examples.length, 2);
  for (const [, format, text = ""] of examples) {
    const folder = await project(t, { [`a.${format}`]: text });
    assert.deepEqual(await complaints(folder, `a.${format}`), []);
  }
  const schema = await readFile(join(root, "schema", "services.schema.json"), "utf8");
  const fields = new Set<string>();
  JSON.parse(schema, (key, value) => {
    if (key === "properties") for (const field of Object.keys(value)) fields.add(field);
    return value;
  });
  const missing = [...fields].filter((field) => !page.includes(`\`${field}`));
  assert.deepEqual(missing, []);
});

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { projectRoot } from "../config/config.ts";
import { Fixture } from "../process-manager/fixture.ts";
import type { ServiceRecord } from "../process-manager/service-status.ts";

/** The command line as npm and the linked command start it. */
export const entry = join(projectRoot, "bin", "main.mjs");

/** A verb that goes on. */
interface Run {
  readonly child: ChildProcess;
  /** Everything that it has printed, on both streams. */
  readonly output: () => string;
  /** Resolves when it has printed this; fails when it ends without. */
  readonly printed: (text: string | RegExp) => Promise<void>;
  readonly ended: Promise<number | null>;
}

/** For tests: a folder with a services file, and the command line in it. */
export class Project {
  readonly fixture: Fixture;

  private constructor(fixture: Fixture) {
    this.fixture = fixture;
  }

  static async create(t: TestContext, services: object, name = "services.json"): Promise<Project> {
    let project: Project | null = null;
    t.after(() => void project?.pugmark("down", "-f", name)); // before the fixture looks for what is left
    project = new Project(await Fixture.create(t));
    await project.write(services, name);
    return project;
  }

  get folder(): string {
    return this.fixture.folder;
  }

  async write(services: object, name = "services.json"): Promise<void> {
    await writeFile(join(this.folder, name), JSON.stringify({ services }));
  }

  /** Runs a verb to its end. */
  pugmark(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
    const { folder, fixture } = this;
    return spawnSync(process.execPath, [entry, ...args], { cwd: folder, env: fixture.env, encoding: "utf8" });
  }

  /** Starts a verb that goes on. */
  run(...args: readonly string[]): Run {
    const { folder, fixture } = this;
    const child = spawn(process.execPath, [entry, ...args], { cwd: folder, env: fixture.env });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
        child.emit("printed");
      });
    const ended = once(child, "close").then(([code]) => code as number | null);
    const printed = async (text: string | RegExp): Promise<void> => {
      while (output.search(text) < 0) {
        await Promise.race([once(child, "printed"), once(child, "close")]);
        if (child.exitCode !== null && output.search(text) < 0)
          throw new Error(`ended with ${child.exitCode}, and never printed ${text}:\n${output}`);
      }
    };
    return { child, output: () => output, printed, ended };
  }

  services(): ServiceRecord[] {
    return JSON.parse(this.pugmark("status", "--json", "-f", "services.json").stdout).services;
  }
}

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const program = "/lib/systemd/systemd";

/** Why a systemd of one's own cannot run here, for the `skip` of a test; false where it can. */
export const noSystemd: string | false = whyNot();

/** Why `systemd-analyze` cannot run here; false where it can. */
export const noSystemdAnalyze: string | false = isExecutable("/usr/bin/systemd-analyze")
  ? false
  : "systemd-analyze is not installed";

/** A user's systemd with units, folders and control groups of its own, whatever process 1 of the machine is. */
export interface TestSystemd extends AsyncDisposable {
  /** Where its unit files belong. */
  readonly units: string;
  /** Runs `systemctl --user …` and gives its output. */
  readonly systemctl: (...args: readonly string[]) => Promise<string>;
}

/** Starts one. Disposing ends it, and with it all that it runs. */
export async function startSystemd(): Promise<TestSystemd> {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-systemd-"));
  const units = join(folder, "config", "systemd", "user");
  mkdirSync(units, { recursive: true });
  mkdirSync(join(folder, "run"), { mode: 0o700 });
  const env = {
    PATH: process.env.PATH ?? "",
    HOME: folder,
    XDG_RUNTIME_DIR: join(folder, "run"),
    XDG_CONFIG_HOME: join(folder, "config"),
    XDG_DATA_HOME: join(folder, "data"),
    XDG_STATE_HOME: join(folder, "state"),
    SYSTEMD_COLORS: "0",
  };
  // It only runs where /run says that systemd is at work; the mount is seen by this process alone.
  const script = `mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec ${program} --user --unit=basic.target --log-target=console`;
  const child = spawn("/usr/bin/unshare", ["-m", "sh", "-c", script], {
    env,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const systemctl = async (...args: readonly string[]): Promise<string> =>
    (await run("systemctl", ["--user", ...args], { env })).stdout;

  await until("systemd answers", async () => {
    if (child.exitCode !== null) throw new Error(log);
    await systemctl("show", "--property=Version");
  });
  return {
    units,
    systemctl,
    async [Symbol.asyncDispose]() {
      const exited = child.exitCode === null ? once(child, "exit") : undefined;
      await systemctl("exit").catch(() => child.kill("SIGKILL"));
      await exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Tries until it does not throw; after 20 s, throws its last complaint. */
export async function until<T>(what: string, look: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    try {
      return await look();
    } catch (cause) {
      if (Date.now() > deadline) throw new Error(`never came true: ${what}`, { cause });
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What `systemd-analyze verify` says of the files, which have to be absolute paths; empty where all is well. */
export async function complaintsOf(scope: "system" | "user", files: readonly string[]): Promise<string> {
  const runtime = mkdtempSync(join(tmpdir(), "pugmark-systemd-"));
  try {
    const env = { PATH: process.env.PATH ?? "", HOME: runtime, XDG_RUNTIME_DIR: runtime };
    const { stdout, stderr } = await run("systemd-analyze", [`--${scope}`, "--man=no", "verify", ...files], {
      env,
    }).catch((error: { stdout: string; stderr: string; message: string }) => error);
    return stdout + stderr;
  } finally {
    rmSync(runtime, { recursive: true, force: true });
  }
}

function whyNot(): string | false {
  if (process.platform !== "linux" || !isExecutable(program)) return "systemd is not installed";
  return process.getuid?.() === 0
    ? false
    : "a systemd of one's own needs a mount namespace, which root can have";
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

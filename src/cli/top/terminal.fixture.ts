import { execFile, execFileSync } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, type Fixture } from "../../process-manager/fixture.ts";

const run = promisify(execFile);

/** Why tests that need a terminal cannot run here, or false where they can. */
export const noTerminal: string | false = hasTmux() ? false : "tmux is not installed";

function hasTmux(): boolean {
  try {
    execFileSync("tmux", ["-V"]);
    return true;
  } catch {
    return false;
  }
}

/** For tests: a real terminal of a given size, that tmux draws, with a shell in it. */
export class Terminal implements AsyncDisposable {
  readonly #fixture: Fixture;

  private constructor(fixture: Fixture) {
    this.#fixture = fixture;
  }

  static async open(fixture: Fixture, columns: number, rows: number): Promise<Terminal> {
    const terminal = new Terminal(fixture);
    const size = ["-x", String(columns), "-y", String(rows)];
    // Its own shell without anybody's settings, with a prompt that can be waited for.
    await terminal.#tmux("new-session", "-d", ...size, "exec env 'PS1=prompt: ' sh -i");
    await terminal.until((screen) => screen.includes("prompt:"), "a prompt");
    return terminal;
  }

  /** Types a command and Enter. */
  async type(command: string): Promise<void> {
    await this.#tmux("send-keys", "-l", command);
    await this.press("Enter");
  }

  /** Presses keys by tmux's names for them: `j`, `Down`, `C-c`. */
  async press(...keys: readonly string[]): Promise<void> {
    await this.#tmux("send-keys", ...keys);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux("resize-window", "-x", String(columns), "-y", String(rows));
  }

  /** The screen as text, a line for each row. */
  async screen(): Promise<string> {
    return await this.#tmux("capture-pane", "-p");
  }

  /** What tmux knows of the terminal: `alternate_on`, `cursor_flag`, `pane_width`. */
  async flag(name: string): Promise<string> {
    return (await this.#tmux("display-message", "-p", `#{${name}}`)).trim();
  }

  /** Resolves with the screen as soon as it is as wanted; fails with the last one after 10 s. */
  async until(isWanted: (screen: string) => boolean, wanted: string): Promise<string> {
    return await eventually(wanted, async () => {
      const screen = await this.screen();
      if (!isWanted(screen)) throw new Error(screen);
      return screen;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tmux("kill-server");
  }

  async #tmux(...args: readonly string[]): Promise<string> {
    const { stdout } = await run(
      "tmux",
      ["-f", "/dev/null", "-S", join(this.#fixture.folder, "tmux"), ...args],
      {
        env: {
          ...this.#fixture.env,
          PUGMARK_HOME: this.#fixture.home,
          TERM: "xterm-256color",
          LANG: "C.UTF-8",
        },
      },
    );
    return stdout;
  }
}

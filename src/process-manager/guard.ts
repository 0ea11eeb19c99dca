import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits on its standard input. A line `+ PGID SIGNAL` adds a process group, `- PGID` takes it off, `quit` ends
 * it. When the input ends otherwise, the manager is gone: each group is sent its signal, has a second, and is then
 * killed, and so is every process that carries the mark ($1). It carries no mark itself, ignores the terminal's
 * signals, and uses nothing that a bare sh, sleep, grep or ps does not have.
 */
const script = `
trap '' HUP INT TERM
mark="PROCESS_MANAGER_MARK=$1"
groups=""
while IFS=' ' read -r op pgid signal; do
  case $op in
    +) groups="$groups $pgid:$signal" ;;
    -) rest=""
       for group in $groups; do
         case $group in "$pgid":*) ;; *) rest="$rest $group" ;; esac
       done
       groups=$rest ;;
    quit) exit 0 ;;
  esac
done
for group in $groups; do kill -s "\${group#*:}" -- "-\${group%%:*}" 2>/dev/null; done
tries=0
while [ $tries -lt 20 ]; do
  alive=""
  for group in $groups; do
    if kill -s 0 -- "-\${group%%:*}" 2>/dev/null; then alive=yes; fi
  done
  [ -z "$alive" ] && break
  tries=$((tries + 1))
  sleep 0.05 2>/dev/null || { sleep 1; tries=20; }
done
for group in $groups; do kill -s KILL -- "-\${group%%:*}" 2>/dev/null; done
marked() {
  if [ -d /proc/self ]; then
    grep -lsF -e "$mark" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'
  else
    ps -axwwE -o pid=,command= | grep -F -e " $mark" | grep -vF -e grep | sed 's/^ *//; s/ .*//'
  fi
}
rounds=0
while [ $rounds -lt 10 ]; do
  pids=$(marked)
  [ -z "$pids" ] && break
  for pid in $pids; do kill -s KILL "$pid" 2>/dev/null; done
  rounds=$((rounds + 1))
  sleep 0.05 2>/dev/null || sleep 1
done
`;

/**
 * A tiny process that outlives the manager by at most two seconds, to end every child when the manager itself is
 * killed and can do nothing. If the guard dies, another takes its place. There is none on Windows.
 */
export class Guard {
  readonly #mark: string;
  readonly #path: string;
  readonly #groups = new Map<number, NodeJS.Signals>();
  #child: ChildProcess | null = null;
  #isClosing = false;
  #deaths = 0;

  constructor(mark: string, path: string) {
    this.#mark = mark;
    this.#path = path;
    this.#spawn();
  }

  /** The guard's pid, or null while there is none. */
  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** From now on the group is ended if the manager dies; `signal` is what it is asked with first. */
  watch(pgid: number, signal: NodeJS.Signals): void {
    this.#groups.set(pgid, signal);
    this.#tell(`+ ${pgid} ${signal.slice(3)}`);
  }

  /** The group is empty and its number may come to belong to others. */
  forget(pgid: number): void {
    if (this.#groups.delete(pgid)) this.#tell(`- ${pgid}`);
  }

  /** Ends the guard; call it when no child is left. */
  async close(): Promise<void> {
    this.#isClosing = true;
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.ref();
    this.#tell("quit");
    child.stdin?.end();
    const late = new AbortController();
    const kill = delay(1_000, undefined, { signal: late.signal }).then(
      () => child.kill("SIGKILL"),
      () => false,
    );
    await exited;
    late.abort();
    await kill;
  }

  #spawn(): void {
    if (process.platform === "win32") return;
    // Its own session: Ctrl+C at the terminal must not reach it. No descriptor but stdin: a log pipe
    // that it kept open would never end.
    const child = spawn("/bin/sh", ["-c", script, "process-manager-guard", this.#mark], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
      cwd: "/",
      env: { PATH: this.#path },
    });
    this.#child = child;
    child.on("error", () => this.#replace(child));
    child.on("exit", () => this.#replace(child));
    child.stdin?.on("error", () => undefined); // it died; its exit is what counts
    child.unref();
    if (child.stdin && "unref" in child.stdin && typeof child.stdin.unref === "function") child.stdin.unref();
    for (const [pgid, signal] of this.#groups) this.#tell(`+ ${pgid} ${signal.slice(3)}`);
  }

  #replace(dead: ChildProcess): void {
    if (this.#isClosing || this.#child !== dead) return;
    this.#child = null;
    this.#deaths += 1;
    // At once the first time; never a tight loop where /bin/sh cannot run at all.
    const pauseMs = Math.min((this.#deaths - 1) * 100, 5_000);
    setTimeout(() => {
      if (!this.#isClosing) this.#spawn();
    }, pauseMs).unref();
  }

  #tell(line: string): void {
    if (this.#child?.stdin?.writable) this.#child.stdin.write(`${line}\n`);
  }
}

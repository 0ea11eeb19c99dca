/** What the process manager hands a service: a socket it already holds, and a line to say "ready" on. */
export interface Supervision {
  /** File descriptor of the listening socket (systemd's LISTEN_FDS protocol). */
  readonly listenFd?: number;
  /** File descriptor that takes `READY=1`. */
  readonly notifyFd?: number;
}

/** Reads the hand-over from the environment; empty for a service that somebody started by hand. */
export function readSupervision(environment: NodeJS.ProcessEnv = process.env): Supervision {
  const { LISTEN_FDS, NOTIFY_FD } = environment;
  return {
    ...(LISTEN_FDS === "1" ? { listenFd: 3 } : {}),
    ...(NOTIFY_FD && /^\d+$/.test(NOTIFY_FD) ? { notifyFd: Number(NOTIFY_FD) } : {}),
  };
}

/** Where a service is in its life; only a task comes to `completed`. External services know only `waiting`, `ready` and `unhealthy`. */
export type State =
  | "waiting"
  | "starting"
  | "ready"
  | "unhealthy"
  | "stopping"
  | "stopped"
  | "completed"
  | "backoff"
  | "failed";

/** What can happen to a service. */
export type Happening =
  | "start-asked"
  | "dependencies-met"
  | "probe-passed"
  | "probe-failed"
  | "replaced"
  | "died"
  | "retry-due"
  | "finished"
  | "completed"
  | "rescheduled"
  | "gave-up"
  | "stop-asked"
  | "ended";

/** Every legal move, and nothing else: an absent cell is a happening that the state ignores. */
const moves = {
  stopped: { "start-asked": "waiting" },
  completed: { "start-asked": "waiting", "stop-asked": "stopping" },
  waiting: {
    "dependencies-met": "starting",
    "probe-passed": "ready", // an external service is probed without being started
    "probe-failed": "unhealthy",
    "gave-up": "failed",
    "stop-asked": "stopping",
  },
  starting: {
    "probe-passed": "ready",
    died: "backoff",
    finished: "stopped",
    completed: "completed",
    rescheduled: "waiting",
    "gave-up": "failed",
    "stop-asked": "stopping",
  },
  ready: {
    "probe-failed": "unhealthy",
    replaced: "ready",
    died: "backoff",
    finished: "stopped",
    "gave-up": "failed",
    "stop-asked": "stopping",
  },
  unhealthy: {
    "probe-passed": "ready",
    replaced: "ready",
    died: "backoff",
    finished: "stopped",
    "gave-up": "failed",
    "stop-asked": "stopping",
  },
  backoff: { "retry-due": "starting", "gave-up": "failed", "stop-asked": "stopping" },
  stopping: { ended: "stopped" },
  failed: { "start-asked": "waiting", "stop-asked": "stopping" },
} satisfies Record<State, Partial<Record<Happening, State>>>;

/** Every state there is. */
export const states = Object.keys(moves) as readonly State[];

/** Whether it has got ready and its process is still there: an unhealthy one may be ready again by itself. */
export function isUp(state: State): boolean {
  return state === "ready" || state === "unhealthy";
}

/** The state after a happening, or `undefined` where the state ignores it. */
export function nextState(state: State, happening: Happening): State | undefined {
  const row: Partial<Record<Happening, State>> = moves[state];
  return row[happening];
}

import type { Reply } from "./project.ts";

/** What keeps everything from getting through, and what helps, for people. */
export function troubleOf({ status, error }: Pick<Reply, "status" | "error">): string {
  const words = error?.message ?? "";
  const advice = adviceOf(status, error?.code ?? "");
  const answer = status === 0 ? "the project does not answer" : `the project answers ${status}`;
  return `${answer}${words ? `: ${words.slice(0, 300)}` : ""}${advice}`;
}

function adviceOf(status: number, code: string): string {
  if (status === 401) return "; is SUPABASE_SERVICE_ROLE the project's secret key?";
  if (status === 402) return "; the project's plan is used up";
  if (code === "25006") return "; it can only be read: its disk is full, or its plan used up";
  if (code !== "" && (status === 404 || status === 403 || code.startsWith("PGRST20")))
    return "; it seems to lack our migrations: pugmark supabase setup";
  return "";
}

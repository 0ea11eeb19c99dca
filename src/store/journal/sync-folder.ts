import { open } from "node:fs/promises";

/** Makes what was created, renamed or deleted in a folder last. Windows does that by itself, and knows no such call. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const folder = await open(path, "r");
  await folder.sync().finally(() => folder.close());
}

/**
 * So many random bytes, as hexadecimal digits. `node:crypto` is taken when it is needed and not imported: an import
 * reads all its names, and so loads all of it, also in commands that need none.
 */
export function randomId(bytes: number): string {
  return process.getBuiltinModule("node:crypto").randomBytes(bytes).toString("hex");
}

import { isMap, isNode, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import type { FileText, Position } from "./file-text.ts";

/** Reads YAML 1.2, with anchors and `<<` merges; a key that comes twice is a problem. */
export function readYaml(text: string): FileText {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, merge: true, prettyErrors: false });
  const positionOf = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const problems = [...document.errors, ...document.warnings].map(({ pos, message }) => ({
    at: positionOf(pos[0]),
    message,
  }));
  const { contents } = document;
  let value: unknown;
  try {
    if (problems.length === 0) value = document.toJS();
  } catch (error) {
    // Aliases of aliases of aliases: a small file may stand for gigabytes.
    problems.push({ at: positionOf(0), message: error instanceof Error ? error.message : String(error) });
  }
  return {
    value,
    problems,
    locate: (path, isKey) => positionOf(offsetOf(contents, path, isKey)),
  };
}

function offsetOf(root: Node | null, path: readonly (string | number)[], isKey: boolean): number {
  let [node, keyStart] = [root, startOf(root)];
  for (const key of path) {
    const pair = isMap(node)
      ? node.items.find((item) => (isScalar(item.key) ? String(item.key.value) : "") === key)
      : undefined;
    const next = isSeq(node) ? node.items[Number(key)] : pair?.value;
    if (!isNode(next)) return startOf(node); // missing, or merged in from elsewhere
    keyStart = isNode(pair?.key) ? startOf(pair.key) : startOf(next);
    node = next;
  }
  return isKey ? keyStart : startOf(node);
}

function startOf(node: Node | null): number {
  return node?.range?.[0] ?? 0;
}

import { type FileText, positionAt } from "./file-text.ts";

interface Node {
  readonly value: unknown;
  readonly start: number;
  /** Of an object or an array: where each key is, and what it has. */
  readonly members: ReadonlyMap<string | number, { readonly keyStart: number; readonly node: Node }>;
}

class Unreadable extends Error {
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

/** Reads JSON as `JSON.parse` does, and keeps the places, which that does not; a key that comes twice is a problem. */
export function readJson(text: string): FileText {
  const duplicates: { readonly key: string; readonly offset: number }[] = [];
  try {
    const root = new Reader(text, (key, offset) => duplicates.push({ key, offset })).readAll();
    return {
      value: root.value,
      problems: duplicates.map(({ key, offset }) => ({
        at: positionAt(text, offset),
        message: `the key ${JSON.stringify(key)} is there twice`,
      })),
      locate: (path, isKey) => positionAt(text, offsetOf(root, path, isKey)),
    };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    const at = positionAt(text, error.offset);
    return { value: undefined, problems: [{ at, message: error.message }], locate: () => at };
  }
}

function offsetOf(root: Node, path: readonly (string | number)[], isKey: boolean): number {
  let [node, keyStart] = [root, root.start];
  for (const key of path) {
    const member = node.members.get(key);
    if (!member) return node.start;
    ({ node, keyStart } = member);
  }
  return isKey ? keyStart : node.start;
}

const tokens = /\s*(?:("(?:[^"\\]|\\.)*")|([{}[\],:])|([^\s{}[\],:"]+)|$)/y;
const noMembers: Node["members"] = new Map();

class Reader {
  readonly #text: string;
  readonly #onDuplicate: (key: string, offset: number) => void;
  #token = "";
  #start = 0;
  #end = 0;

  constructor(text: string, onDuplicate: (key: string, offset: number) => void) {
    this.#text = text;
    this.#onDuplicate = onDuplicate;
    this.#advance();
  }

  readAll(): Node {
    const node = this.#value();
    if (this.#token !== "") this.#refuse("the end of the file");
    return node;
  }

  #advance(): void {
    tokens.lastIndex = this.#end;
    const match = tokens.exec(this.#text);
    if (!match) throw new Unreadable("this text in quotes has no end", this.#skipSpace());
    this.#token = match[1] ?? match[2] ?? match[3] ?? "";
    this.#end = tokens.lastIndex;
    this.#start = this.#end - this.#token.length;
  }

  #is(token: string): boolean {
    return this.#token === token;
  }

  #skipSpace(): number {
    return this.#end + (/^\s*/.exec(this.#text.slice(this.#end))?.[0].length ?? 0);
  }

  #refuse(wanted: string): never {
    const found = this.#token === "" ? "the end of the file" : this.#token;
    throw new Unreadable(`${wanted} should be here, not ${found}`, this.#start);
  }

  #value(): Node {
    if (this.#token === "{") return this.#collection("}", () => this.#key());
    if (this.#token === "[") return this.#collection("]", (index) => index);
    const node = { value: this.#scalar(), start: this.#start, members: noMembers };
    this.#advance();
    return node;
  }

  #scalar(): unknown {
    try {
      return JSON.parse(this.#token);
    } catch {
      return this.#refuse("a value");
    }
  }

  #collection(close: "}" | "]", keyAt: (index: number) => string | number): Node {
    const start = this.#start;
    const members = new Map<string | number, { keyStart: number; node: Node }>();
    this.#advance();
    while (!this.#is(close)) {
      const keyStart = this.#start;
      const key = keyAt(members.size);
      if (members.has(key)) this.#onDuplicate(String(key), keyStart);
      members.set(key, { keyStart, node: this.#value() });
      if (!this.#is(",")) break;
      this.#advance();
      if (this.#is(close)) this.#refuse(close === "}" ? "a key" : "a value");
    }
    if (!this.#is(close)) this.#refuse(`"," or "${close}"`);
    this.#advance();
    const values = [...members].map(([key, { node }]) => [key, node.value] as const);
    const value = close === "]" ? values.map(([, one]) => one) : Object.fromEntries(values);
    return { value, start, members };
  }

  #key(): string {
    if (!this.#token.startsWith('"')) this.#refuse("a key in double quotes");
    const key = String(this.#scalar());
    this.#advance();
    if (this.#token !== ":") this.#refuse('":"');
    this.#advance();
    return key;
  }
}

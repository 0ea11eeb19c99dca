import { isDeepStrictEqual } from "node:util";
import { nearest } from "./nearest.ts";

/** A JSON Schema, as far as `findMismatches` knows them: any other keyword is an error. */
export type Schema = Readonly<Record<string, unknown>>;

/** One thing that is wrong, and where. */
export interface Mismatch {
  readonly path: readonly (string | number)[];
  /** What is wrong with what is at the path. */
  readonly message: string;
  /** The key itself is wrong, not the value that it has. */
  readonly isKey?: boolean;
}

interface Context {
  readonly root: Schema;
  readonly path: Mismatch["path"];
}

type Keyword = (wanted: never, value: unknown, schema: Schema, context: Context) => Mismatch[];

/**
 * Everything in which the value is not what the schema says. Knows the keywords of draft 2020-12 that the table below
 * has, with the same verdict as a full validator on anything that JSON can say. A function, which JSON cannot say,
 * is taken where the schema takes nothing (`not: {}`), and a property that is `undefined` is not there.
 */
export function findMismatches(root: Schema, value: unknown): Mismatch[] {
  return check(root, value, { root, path: [] });
}

function check(schema: Schema, value: unknown, context: Context): Mismatch[] {
  return Object.entries(schema).flatMap(([name, wanted]) => {
    if (annotations.has(name)) return [];
    const keyword = keywords[name];
    if (!keyword) throw new Error(`the schema has the keyword ${name}, which is not known here`);
    return keyword(wanted as never, value, schema, context);
  });
}

const annotations = new Set(["$schema", "$id", "$defs", "title", "description", "default", "examples"]);

const keywords: Readonly<Record<string, Keyword>> = {
  $ref: (name: string, value, _schema, context) => check(resolve(name, context.root), value, context),

  type: (type: string, value, _schema, context) =>
    hasType(type, value) ? [] : wrong(context, `must be ${article(type)}, not ${describe(value)}`),

  const: (one: unknown, value, _schema, context) =>
    isDeepStrictEqual(one, value) ? [] : wrong(context, `must be ${JSON.stringify(one)}`),

  enum: (choices: readonly unknown[], value, _schema, context) =>
    choices.includes(value) ? [] : wrong(context, `must be ${oneOf(choices)}${meant(value, choices)}`),

  not: (schema: Schema, value, _schema, context) => {
    if (typeof value === "function" || check(schema, value, context).length > 0) return [];
    const takesNothing = Object.keys(schema).length === 0;
    return wrong(
      context,
      takesNothing
        ? "must be a function, which only a TypeScript or JavaScript file can hold"
        : `must not be ${JSON.stringify(value)}`,
    );
  },

  anyOf: (branches: readonly Schema[], value, _schema, context) => anyOf(branches, value, context),

  properties: (properties: Readonly<Record<string, Schema>>, value, _schema, context) =>
    entriesOf(value).flatMap(([key, one]) => {
      const schema = Object.hasOwn(properties, key) ? properties[key] : undefined;
      return schema ? check(schema, one, below(context, key)) : [];
    }),

  required: (names: readonly string[], value, _schema, context) => {
    if (!isObject(value)) return [];
    const there = new Set(entriesOf(value).map(([key]) => key));
    return names.filter((name) => !there.has(name)).flatMap((name) => wrong(context, `must have ${name}`));
  },

  additionalProperties: (schema: Schema | false, value, { properties = {} }, context) => {
    const known = Object.keys(properties as object);
    return entriesOf(value)
      .filter(([key]) => !known.includes(key))
      .flatMap(([key, one]): Mismatch[] => {
        if (schema !== false) return check(schema, one, below(context, key));
        const near = nearest(key, known);
        const hint = near ? `did you mean \`${near}\`?` : `there are: ${known.join(", ")}`;
        return [{ ...below(context, key), message: `is not known; ${hint}`, isKey: true }];
      });
  },

  propertyNames: (schema: Schema, value, _schema, context) =>
    entriesOf(value).flatMap(([key]) =>
      check(schema, key, below(context, key)).map((mismatch) => ({ ...mismatch, isKey: true })),
    ),

  items: (schema: Schema, value, _schema, context) =>
    Array.isArray(value) ? value.flatMap((one, index) => check(schema, one, below(context, index))) : [],

  minItems: (least: number, value, _schema, context) =>
    Array.isArray(value) && value.length < least ? wrong(context, `must have at least ${least} entry`) : [],

  minLength: (least: number, value, _schema, context) =>
    typeof value === "string" && [...value].length < least ? wrong(context, "must not be empty") : [],

  pattern: (pattern: string, value, _schema, context) =>
    typeof value === "string" && !new RegExp(pattern, "u").test(value)
      ? wrong(context, `must match ${pattern}`)
      : [],

  minimum: (least: number, value, _schema, context) =>
    typeof value === "number" && value < least ? wrong(context, `must be ${least} or more`) : [],

  exclusiveMinimum: (bound: number, value, _schema, context) =>
    typeof value === "number" && value <= bound ? wrong(context, `must be more than ${bound}`) : [],

  maximum: (most: number, value, _schema, context) =>
    typeof value === "number" && value > most ? wrong(context, `must be ${most} or less`) : [],
};

/**
 * Passes when a branch does. Otherwise tells what is wrong with the branch that was surely meant: the only one of the
 * value's type, or of its `kind`; and where it is none of them, what could be there.
 */
function anyOf(branches: readonly Schema[], value: unknown, context: Context): Mismatch[] {
  const resolved = branches.map((branch) => unfold(branch, context.root));
  const results = resolved.map((branch) => check(branch, value, context));
  if (results.some((mismatches) => mismatches.length === 0)) return [];
  const typed = resolved.flatMap((branch, index) =>
    branch.type === undefined || hasType(String(branch.type), value) ? [index] : [],
  );
  if (typed.length === 0) {
    const types = [...new Set(resolved.map(({ type }) => article(String(type))))];
    return wrong(context, `must be ${types.join(" or ")}, not ${describe(value)}`);
  }
  const kind = isObject(value) ? value.kind : undefined;
  const kinds = (index: number): readonly unknown[] => kindsOf(resolved[index] ?? {});
  const chosen =
    typed.length === 1
      ? typed[0]
      : typed.find((index) =>
          kind === undefined ? !needsKind(resolved[index]) : kinds(index).includes(kind),
        );
  if (chosen !== undefined) return results[chosen] ?? [];
  const choices = typed.flatMap((index) => [...kinds(index)]);
  if (kind === undefined) return wrong(context, `must have kind: ${oneOf(choices)}`);
  return wrong(below(context, "kind"), `must be ${oneOf(choices)}${meant(kind, choices)}`);
}

function unfold(schema: Schema, root: Schema): Schema {
  return typeof schema.$ref === "string" ? resolve(schema.$ref, root) : schema;
}

function kindsOf(branch: Schema): readonly unknown[] {
  const { kind } = (branch.properties ?? {}) as Readonly<Record<string, Schema>>;
  return kind?.enum ? (kind.enum as readonly unknown[]) : kind ? [kind.const] : [];
}

function needsKind(branch: Schema | undefined): boolean {
  return ((branch?.required ?? []) as readonly string[]).includes("kind");
}

function resolve(name: string, root: Schema): Schema {
  const definitions = root.$defs as Readonly<Record<string, Schema>>;
  const schema = definitions[name.replace("#/$defs/", "")];
  if (!schema) throw new Error(`the schema has no ${name}`);
  return schema;
}

function hasType(type: string, value: unknown): boolean {
  if (type === "object") return isObject(value);
  if (type === "array") return Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  if (type === "number") return Number.isFinite(value);
  return typeof value === type;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function entriesOf(value: unknown): [string, unknown][] {
  return isObject(value) ? Object.entries(value).filter(([, one]) => one !== undefined) : [];
}

function below({ root, path }: Context, key: string | number): Context {
  return { root, path: [...path, key] };
}

function wrong({ path }: Context, message: string): Mismatch[] {
  return [{ path, message }];
}

function article(type: string): string {
  if (type === "string") return "text";
  if (type === "integer") return "a whole number";
  if (type === "array") return "a list";
  if (type === "object") return "a map";
  return type === "boolean" ? "true or false" : `a ${type}`;
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (isObject(value)) return "a map";
  if (value === null || value === undefined) return "empty";
  return typeof value === "function" ? "a function" : JSON.stringify(value);
}

function oneOf(choices: readonly unknown[]): string {
  return choices.length === 1 ? String(choices[0]) : `one of ${choices.join(", ")}`;
}

function meant(value: unknown, choices: readonly unknown[]): string {
  const near = typeof value === "string" ? nearest(value, choices.map(String)) : undefined;
  return near === undefined ? `, not ${describe(value)}` : `; did you mean \`${near}\`?`;
}

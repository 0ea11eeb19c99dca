// Of ECMAScript's JSON.parse source text access, which TypeScript's libraries do not know yet.
declare global {
  interface JSON {
    rawJSON(text: string): unknown;
  }
}

/** Numbers that JavaScript may change the value or the digits of: long ones, exponents, zeros at the end, and -0. */
const delicate = /[[:,]\s*-?(?:\d[\d.]{15,}|\d[\d.]*e|\d+\.\d*0(?=[,}\]\s])|(?<=-)0(?=[,}\]\s]))/i;

/**
 * Parses JSON that is to be written again as it was: a number that JavaScript cannot hold as it stands there becomes a raw
 * piece of JSON, which `JSON.stringify` gives out unchanged. Throws `SyntaxError`.
 */
export function parseExactly(text: string): unknown {
  // Looking at each number costs ten times what parsing does.
  return delicate.test(text) ? JSON.parse(text, exactly) : JSON.parse(text);
}

function exactly(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  const source = context?.source;
  return typeof value === "number" && source !== undefined && String(value) !== source
    ? JSON.rawJSON(source)
    : value;
}

import { Type } from "typebox";
import { Check } from "typebox/value";
import type { BatchProblem } from "../../store/batches.ts";

/** A line of a batch's input that can be run. */
export interface InputLine {
  readonly customId: string;
  /** Undefined where the line names none. */
  readonly model: string | undefined;
  /** JSON. */
  readonly body: string;
}

const customIdCharsMax = 512;

const AskedBody = Type.Object({ model: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })) });

/**
 * Reads one line of a batch's input, `{"custom_id", "method": "POST", "url", "body"}`: what every line must
 * have. Whether a model can be asked its body is found out when it is, for that is no reason to run no line.
 */
export function readInputLine(text: string, endpoint: string): InputLine | Omit<BatchProblem, "line"> {
  const value = parsed(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return problem("invalid_json_line", "This line is not a JSON object.", null);
  }
  const { custom_id: customId, method, url, body } = value as Readonly<Record<string, unknown>>;
  if (typeof customId !== "string" || !isStorableId(customId)) {
    const message = `custom_id must be a text of 1 to ${customIdCharsMax} characters.`;
    return problem(
      customId === undefined ? "missing_required_parameter" : "invalid_custom_id",
      message,
      "custom_id",
    );
  }
  if (method !== "POST") return problem("invalid_method", 'method must be "POST".', "method");
  if (url !== endpoint) {
    return problem("invalid_url", `url must be the batch's endpoint, ${endpoint}.`, "url");
  }
  if (!Check(AskedBody, body) || (body.model !== undefined && !isStorableText(body.model))) {
    return problem(
      "invalid_body",
      "body must be an object; model in it, where there is one, a name.",
      "body",
    );
  }
  return { customId, model: body.model, body: JSON.stringify(body) };
}

function parsed(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    // What is nested too deeply to be written again cannot be run either.
    JSON.stringify(value);
    return value;
  } catch {
    return undefined;
  }
}

function isStorableId(id: string): boolean {
  return id.length > 0 && id.length <= customIdCharsMax && isStorableText(id);
}

/** No database takes the one, and half a surrogate pair would come back as something else. */
function isStorableText(text: string): boolean {
  return !text.includes("\0") && text.isWellFormed();
}

function problem(code: string, message: string, param: string | null): Omit<BatchProblem, "line"> {
  return { code, message, param };
}

import { stripVTControlCharacters } from "node:util";

const colourStart = "\u001b\\[";
const colour = new RegExp(`(${colourStart}[\\d;]*m)`);
const zeroWide = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
const twoWide =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}\p{Emoji_Presentation}]$/u;

/** How many columns of a terminal the text takes; colours take none. */
export function widthOf(text: string): number {
  return [...stripVTControlCharacters(text)].reduce((width, letter) => width + letterWidth(letter), 0);
}

/**
 * The text in one line of at most so many columns, cut with an ellipsis where it is longer. Colours are kept and
 * ended; whatever else would move a terminal's cursor is taken out.
 */
export function fitLine(text: string, columns: number): string {
  const isLong = widthOf(oneLine(text)) > columns;
  const room = isLong ? columns - 1 : columns;
  let width = 0;
  let isColoured = false;
  let result = "";
  for (const part of text.split(colour)) {
    if (colour.test(part)) {
      result += part;
      isColoured = true;
      continue;
    }
    for (const letter of oneLine(part)) {
      width += letterWidth(letter);
      if (width > room) break;
      result += letter;
    }
  }
  return `${result}${isLong && columns > 0 ? "…" : ""}${isColoured ? "\x1b[0m" : ""}`;
}

/** As `fit`, and filled up with spaces to exactly so many columns. */
export function fitLinePadded(text: string, columns: number): string {
  const line = fitLine(text, columns);
  return line + " ".repeat(Math.max(0, columns - widthOf(line)));
}

/** The words in lines of at most so many columns; a longer word is cut in two. */
export function wrap(text: string, columns: number): string[] {
  const lines = [""];
  for (const word of oneLine(text).split(" ")) {
    const line = lines.at(-1) ?? "";
    if (line !== "" && widthOf(line) + 1 + widthOf(word) <= columns) {
      lines[lines.length - 1] = `${line} ${word}`;
      continue;
    }
    if (line !== "") lines.push("");
    for (const letter of word) {
      if (widthOf(lines.at(-1) ?? "") + letterWidth(letter) > columns) lines.push("");
      lines[lines.length - 1] += letter;
    }
  }
  return lines;
}

function letterWidth(letter: string): 0 | 1 | 2 {
  if (letter < "\u0300") return 1;
  return zeroWide.test(letter) ? 0 : twoWide.test(letter) ? 2 : 1;
}

function oneLine(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll("\t", "    ")
    .replace(/\p{Cc}+/gu, " ");
}

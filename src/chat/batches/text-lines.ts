/** A line that is longer than allowed, or no text at all. */
export const unreadable = Symbol("unreadable");

/**
 * The lines of a UTF-8 file that comes in pieces, without their ends; never more than one line and one piece
 * are held. A line of more than `lineBytesMax`, or that is not UTF-8, comes as `unreadable`.
 */
export async function* textLines(
  pieces: AsyncIterable<Uint8Array>,
  lineBytesMax: number,
): AsyncGenerator<string | typeof unreadable, void> {
  let held: Uint8Array[] = [];
  let heldBytes = 0;

  const hold = (bytes: Uint8Array) => {
    heldBytes += bytes.length;
    if (heldBytes <= lineBytesMax) held.push(bytes);
  };
  const line = () => {
    const text = heldBytes > lineBytesMax ? unreadable : decoded(Buffer.concat(held));
    held = [];
    heldBytes = 0;
    return text;
  };

  for await (const piece of pieces) {
    let start = 0;
    for (let end = piece.indexOf(newline); end >= 0; end = piece.indexOf(newline, start)) {
      hold(piece.subarray(start, end));
      start = end + 1;
      yield line();
    }
    if (start < piece.length) hold(piece.subarray(start));
  }
  if (heldBytes > 0) yield line();
}

const newline = 0x0a;
/** Also leaves out the mark that some editors put at the beginning of a file. */
const utf8 = new TextDecoder("utf-8", { fatal: true });

function decoded(bytes: Uint8Array): string | typeof unreadable {
  try {
    return utf8.decode(bytes).replace(/\r$/, "");
  } catch {
    return unreadable;
  }
}

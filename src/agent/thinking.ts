/**
 * A model's text without its thinking, in the three forms that occur: between tags, with the first tag left
 * out because the template had it, and cut off before the last. Empty where there is nothing but thinking.
 */
export function withoutThinking(text: string): string {
  const closed = text.lastIndexOf("</think>");
  const behind = closed < 0 ? text : text.slice(closed + "</think>".length);
  const opened = behind.indexOf("<think>");
  return (opened < 0 ? behind : behind.slice(0, opened)).trim();
}

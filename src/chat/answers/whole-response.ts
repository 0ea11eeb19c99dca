// biome-ignore lint/suspicious/noExplicitAny: this is where what others sent is turned into what we know
type Loose = any;

/**
 * The events that a response would have come in, for one that came whole: a proxy may gather a stream up, and
 * the caller may have asked for one. Clients insist on the order of these events. A response that failed gives
 * `response.failed`; what is no response gives itself.
 */
export function eventsOfWhole(value: unknown): unknown[] {
  const whole = value as Loose;
  if (!Array.isArray(whole?.output)) return [value];
  const begun = { ...whole, status: "in_progress", output: [], usage: null };
  const events = [
    { type: "response.created", response: begun },
    { type: "response.in_progress", response: begun },
    ...whole.output.flatMap((item: Loose, index: number) => eventsOfItem(item, index)),
    {
      type: `response.${/^(failed|incomplete)$/.test(whole.status) ? whole.status : "completed"}`,
      response: whole,
    },
  ];
  return events.map(({ type, ...rest }, index) => ({ type, sequence_number: index, ...rest }));
}

function eventsOfItem(item: Loose, output_index: number): Loose[] {
  const at = { item_id: item?.id, output_index };
  const begun = { ...item, status: "in_progress", ...(Array.isArray(item?.content) ? { content: [] } : {}) };
  const parts: Loose[] = item?.type === "message" && Array.isArray(item.content) ? item.content : [];
  return [
    { type: "response.output_item.added", output_index, item: begun },
    ...parts.flatMap((part, content_index) => eventsOfPart(part, { ...at, content_index })),
    { type: "response.output_item.done", output_index, item },
  ];
}

function eventsOfPart(part: Loose, at: Loose): Loose[] {
  const isText = part?.type === "output_text";
  return [
    { type: "response.content_part.added", ...at, part: isText ? { ...part, text: "" } : part },
    ...(isText
      ? [
          { type: "response.output_text.delta", ...at, delta: part.text },
          { type: "response.output_text.done", ...at, text: part.text },
        ]
      : []),
    { type: "response.content_part.done", ...at, part },
  ];
}

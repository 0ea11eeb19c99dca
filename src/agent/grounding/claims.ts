import { type Dimension, type PartialDate, wordsOf } from "./facts.ts";

/** Something an answer says that data can bear out or not. `text` is the answer's own words. */
export type Claim =
  | {
      readonly kind: "number";
      readonly text: string;
      /** In the base unit, where the text named a unit. */
      readonly value: number;
      /** How far off, in the same unit, rounding may have put it. */
      readonly tolerance: number;
      /** Absent where the text named no unit. */
      readonly dimension?: Dimension | "percent";
      /** A side of the equator or of Greenwich was named, so the sign is not in the number. */
      readonly unsigned: boolean;
    }
  | { readonly kind: "instant"; readonly text: string; readonly at: number; readonly precisionMs: number }
  /** Any one of the readings will do: 3/4/2026 is written in two orders. */
  | { readonly kind: "date"; readonly text: string; readonly readings: readonly PartialDate[] }
  | {
      readonly kind: "clock";
      readonly text: string;
      readonly minuteOfDay: number;
      readonly precisionMin: number;
    }
  | { readonly kind: "name"; readonly text: string; readonly known: boolean };

/**
 * What a text claims: times, dates, numbers with or without a unit, and names. Numbering, ordinals, headings and
 * names of standards are no claims.
 * @param names texts that are names for sure, such as those that tools returned; each mention is a known name.
 * @param words lower-case words that are no invented names, however they are written.
 */
export function claimsOf(text: string, names: readonly string[], words: ReadonlySet<string>): Claim[] {
  const page = new Page(text);
  takeKnownNames(page, names);
  takeTimes(page);
  page.drop(structural);
  takeIdentifiers(page);
  takeNumbers(page);
  takeNames(page, words);
  return page.claims;
}

/** How many items the text lists, one to a line; 0 where it has no list. */
export function listedItems(text: string): number {
  return text.match(/^\s*(?:[-*•]|\d{1,2}[.)])\s+\S/gm)?.length ?? 0;
}

/** A text from which claims are taken one kind after the other; what is taken leaves blots of the same length. */
class Page {
  readonly claims: Claim[] = [];
  text: string;

  constructor(text: string) {
    this.text = text.normalize("NFC");
  }

  /** Turns each match into claims; a match for which `read` has none stays on the page. */
  take(pattern: RegExp, read: (match: RegExpExecArray) => readonly Claim[] | undefined): void {
    for (const match of this.text.matchAll(pattern)) {
      const claims = read(match);
      if (claims === undefined) continue;
      this.claims.push(...claims);
      this.blot(match.index, match[0].length);
    }
  }

  drop(pattern: RegExp): void {
    this.take(pattern, () => []);
  }

  private blot(index: number, length: number): void {
    this.text = this.text.slice(0, index) + blot.repeat(length) + this.text.slice(index + length);
  }
}

const blot = "¤";

const months = "january february march april may june july august september october november december".split(
  " ",
);
const weekdays = "sunday monday tuesday wednesday thursday friday saturday".split(" ");
const month = `(${months.map((name) => `${name}|${name.slice(0, 3)}\\.?`).join("|")}|sept\\.?)(?![\\p{L}])`;
const day = "(\\d{1,2})(?:st|nd|rd|th|\\.)?";
const year = "((?:19|20|21)\\d{2})(?!\\d)";
const to = "\\s*(?:–|—|-|to|and|until|through)\\s*(?:the\\s+)?";
const zone = "(?:\\s?(Z|UTC|GMT|[+-]\\d{2}:?\\d{2})(?![\\p{L}\\d]))?";

/** A name that is also a word of dates, or a short number, is left for the other readers. */
function takeKnownNames(page: Page, names: readonly string[]): void {
  const distinct = [...new Set(names.map((name) => name.normalize("NFC")))]
    .filter((name) => name.length > 1 && !/^\d{1,3}$/.test(name) && !isCalendarWord(name))
    .sort((a, b) => b.length - a.length);
  for (const name of distinct) {
    const pattern = new RegExp(`(?<![\\p{L}\\d])${RegExp.escape(name)}(?![\\p{L}\\d])`, "giu");
    page.take(pattern, ([text]) => [{ kind: "name", text, known: true }]);
  }
}

function isCalendarWord(text: string): boolean {
  const word = text.toLowerCase();
  return [...months, ...weekdays].some((name) => name === word || name.slice(0, 3) === word);
}

function takeTimes(page: Page): void {
  page.take(
    new RegExp(`(?<!\\d)(\\d{4}-\\d{2}-\\d{2})(?:T|\\s+)(\\d{2}:\\d{2})(:\\d{2})?(\\.\\d+)?${zone}`, "giu"),
    ([text, date, clock, seconds, fraction, offset]) => {
      const at = Date.parse(`${date}T${clock}${seconds ?? ":00"}${fraction ?? ""}${offsetOf(offset)}`);
      if (Number.isNaN(at)) return undefined;
      return [{ kind: "instant", text, at, precisionMs: seconds ? 1000 : 60_000 }];
    },
  );

  page.take(/(?<![\d-])(\d{4})-(\d{2})-(\d{2})(?![\d-])/g, ([text, y, m, d]) => [date(text, y, m, d)]);
  page.take(/(?<![\d/.])(\d{1,2})([/.])(\d{1,2})\2(\d{4})(?!\d)/g, ([text, a, , b, y]) => [
    { kind: "date", text, readings: [partial(y, b, a), partial(y, a, b)] },
  ]);

  const pattern = (source: string) => new RegExp(`(?<![\\p{L}\\d])${source}`, "giu");
  page.take(pattern(`${day}${to}${day}\\s+(?:of\\s+)?${month}(?:,?\\s+${year})?`), ([text, a, b, m, y]) => [
    date(text, y, m, a),
    date(text, y, m, b),
  ]);
  page.take(pattern(`${month}\\s+${day}${to}${day}(?!\\d)(?:,?\\s+${year})?`), ([text, m, a, b, y]) => [
    date(text, y, m, a),
    date(text, y, m, b),
  ]);
  page.take(pattern(`${day}\\s+(?:of\\s+)?${month}(?:,?\\s+${year})?`), ([text, d, m, y]) => [
    date(text, y, m, d),
  ]);
  page.take(pattern(`${month}\\s+${day}(?![\\d:.]\\d|\\d)(?:,?\\s+${year})?`), ([text, m, d, y]) => [
    date(text, y, m, d),
  ]);
  page.take(pattern(`${month},?\\s+${year}`), ([text, m, y]) => [date(text, y, m)]);
  // Alone, a month must follow a preposition: "may" and "march" are verbs too.
  page.take(
    new RegExp(`(?<=\\b(?:in|during|since|until|early|late|mid|by)[\\s-])${month}`, "giu"),
    ([text, m]) => (/^\p{Lu}/u.test(text) ? [date(text, undefined, m)] : undefined),
  );
  page.take(new RegExp(`\\b(${weekdays.join("|")})\\b`, "gi"), ([text, name = ""]) => [
    { kind: "date", text, readings: [{ weekday: weekdays.indexOf(name.toLowerCase()) }] },
  ]);

  const half = "\\s?([ap])\\.?m\\b\\.?";
  page.take(
    new RegExp(`(?<![\\d:.])(\\d{1,2}):(\\d{2})(?::\\d{2}(?:\\.\\d+)?)?(?![\\d:])(?:${half})?${zone}`, "giu"),
    ([text, hour, minute, ampm, offset]) => clock(text, hour, minute, ampm, offset),
  );
  page.take(new RegExp(`(?<![\\d:.])(\\d{1,2})${half}`, "gi"), ([text, hour, ampm]) =>
    clock(text, hour, undefined, ampm, undefined),
  );
}

/** A time without a zone is UTC here, as every time is. */
function offsetOf(zoneText: string | undefined): string {
  return zoneText === undefined || !/\d/.test(zoneText) ? "Z" : zoneText;
}

function date(text: string, y?: string, m?: string, d?: string): Claim {
  return { kind: "date", text, readings: [partial(y, m, d)] };
}

function partial(y?: string, m?: string, d?: string): PartialDate {
  const named = months.findIndex((name) => m?.toLowerCase().startsWith(name.slice(0, 3))) + 1;
  return {
    ...(y === undefined ? {} : { year: Number(y) }),
    ...(m === undefined ? {} : { month: named || Number(m) }),
    ...(d === undefined ? {} : { day: Number(d) }),
  };
}

function clock(
  text: string,
  hourText: string | undefined,
  minuteText: string | undefined,
  ampm: string | undefined,
  offset: string | undefined,
): readonly Claim[] | undefined {
  const given = Number(hourText);
  const minute = Number(minuteText ?? 0);
  if (given > 24 || minute > 59) return undefined;
  const hour = ampm === undefined ? given : (given % 12) + (ampm.toLowerCase() === "p" ? 12 : 0);
  const [, sign, hours, minutes] = /^([+-])(\d{2}):?(\d{2})$/.exec(offset ?? "") ?? [];
  const shift = sign === undefined ? 0 : (sign === "-" ? 1 : -1) * (Number(hours) * 60 + Number(minutes));
  const minuteOfDay = (((hour * 60 + minute + shift) % 1440) + 1440) % 1440;
  return [{ kind: "clock", text, minuteOfDay, precisionMin: minuteText === undefined ? 60 : 1 }];
}

/** Numbers that order the text or name a standard. */
const structural = new RegExp(
  [
    "^\\s*#{1,6}\\s",
    "^\\s*\\(?\\d{1,2}[.)](?=\\s)",
    "[[(#]\\d{1,2}[\\])](?!\\s*%)",
    "(?<!\\w)#\\d{1,2}\\b",
    "\\b\\d{1,3}(?:st|nd|rd|th)\\b",
    "\\b(?:step|option|point|item|table|figure|section|note|part|example|question|answer)\\s+\\d{1,2}\\b",
    "\\bWGS[ -]?84\\b|\\bRFC[ -]?3339\\b|\\bISO[ -]?8601\\b|\\bEPSG:?\\s?4326\\b|\\bH3\\b|\\bUTC\\s?[+-]?\\d{1,2}\\b",
  ].join("|"),
  "gim",
);

/** Words with a digit in them after a letter, `TAG-17`: keys and call signs, not quantities. */
function takeIdentifiers(page: Page): void {
  page.take(/(?<![\p{L}\d_-])\p{L}[\p{L}_-]*\d[\p{L}\d_-]*/gu, ([text]) => [
    { kind: "name", text: text.replace(/[-_]+$/, ""), known: false },
  ]);
}

type Unit = { readonly dimension: Dimension | "percent"; readonly factor: number };

/** Longest first where one begins another. */
const units: readonly (readonly [source: string, unit: Unit])[] = [
  ["km\\s?/\\s?h|kmh|kph|kilomet(?:re|er)s?\\s+(?:per|an)\\s+hour", { dimension: "speed", factor: 1 / 3.6 }],
  ["m\\s?/\\s?s|mps|met(?:re|er)s?\\s+(?:per|a)\\s+second", { dimension: "speed", factor: 1 }],
  ["mph|miles?\\s+(?:per|an)\\s+hour", { dimension: "speed", factor: 0.44704 }],
  ["knots?|kn", { dimension: "speed", factor: 1852 / 3600 }],
  ["kms?|kilomet(?:re|er)s?", { dimension: "length", factor: 1000 }],
  ["miles?|mi", { dimension: "length", factor: 1609.344 }],
  ["met(?:re|er)s?|m", { dimension: "length", factor: 1 }],
  ["seconds?|secs?|s", { dimension: "duration", factor: 1 }],
  ["minutes?|mins?", { dimension: "duration", factor: 60 }],
  ["hours?|hrs?|h", { dimension: "duration", factor: 3600 }],
  ["days?|d", { dimension: "duration", factor: 86_400 }],
  ["weeks?", { dimension: "duration", factor: 604_800 }],
  ["%|percent|per\\s+cent", { dimension: "percent", factor: 1 }],
  ["°|º|degrees?|deg", { dimension: "angle", factor: 1 }],
];
const unitSource = `(?:[\\s\\u00a0\\u202f-]?(${units.map(([source]) => source).join("|")})(?![\\p{L}\\d]))?`;
const durationSource = units
  .filter(([, unit]) => unit.dimension === "duration")
  .map(([source]) => source)
  .join("|");

const digits =
  "(?<![\\p{L}\\d_.])(?<!\\p{L}[-_])((?<![\\d\\p{L}¤)])[-−])?(\\d{1,3}(?:[,’'\\u00a0\\u202f]\\d{3})+(?!\\d)|\\d+)((?:\\.|,(?=\\d{1,2}(?!\\d)))\\d+)?";
const scaleSource = "(?:\\s+(thousand|million))?";
const numberWords = (
  "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen " +
  "seventeen eighteen nineteen twenty"
).split(" ");

function takeNumbers(page: Page): void {
  const part = `\\d+(?:\\.\\d+)?[\\s-]?(?:${durationSource})(?![\\p{L}\\d])`;
  page.take(new RegExp(`(?<![\\p{L}\\d.])${part}(?:,?\\s*(?:and\\s+)?${part})+`, "giu"), ([text]) => [
    duration(text),
  ]);

  page.take(new RegExp(`${digits}${scaleSource}${unitSource}`, "giu"), (match) => {
    const [text, sign, whole = "", fraction = "", scale, unitText] = match;
    const plain = whole.replace(/\D/g, "");
    const magnitude = Number(plain + fraction.replace(",", "."));
    const multiple = scale === undefined ? 1 : scale.toLowerCase() === "million" ? 1e6 : 1000;
    const unit = unitOf(unitText);
    const before = page.text.slice(Math.max(0, match.index - 20), match.index);
    const behind = page.text.slice(match.index + text.length, match.index + text.length + 12);
    const tolerance = roundingOf(plain, fraction.length - 1) * (isHedged(before) ? 2 : 1);
    const factor = multiple * (unit?.factor ?? 1);
    return [
      {
        kind: "number",
        text: text.trim(),
        value: (sign ? -1 : 1) * magnitude * factor,
        tolerance: tolerance * factor,
        ...(unit ? { dimension: unit.dimension } : {}),
        unsigned: /^[\s°º]*(?:[NSEW]\b|north|south|east|west)/i.test(behind),
      },
    ];
  });

  // "One" is a pronoun more often than a count.
  page.take(
    new RegExp(`\\b(zero|${numberWords.slice(2).join("|")})\\b${unitSource}`, "giu"),
    ([text, word = "", unitText]) => {
      const unit = unitOf(unitText);
      const factor = unit?.factor ?? 1;
      return [
        {
          kind: "number",
          text,
          value: numberWords.indexOf(word.toLowerCase()) * factor,
          tolerance: 0.5 * factor,
          ...(unit ? { dimension: unit.dimension } : {}),
          unsigned: false,
        },
      ];
    },
  );
}

/** "2 h 30 min" is one duration, good to its smallest part. */
function duration(text: string): Claim {
  const parts = [
    ...text.matchAll(new RegExp(`(\\d+(?:\\.\\d+)?)[\\s-]?(${durationSource})(?![\\p{L}\\d])`, "giu")),
  ].map(([, amount, unitText]) => ({ amount: Number(amount), factor: unitOf(unitText)?.factor ?? 1 }));
  return {
    kind: "number",
    text,
    value: parts.reduce((total, { amount, factor }) => total + amount * factor, 0),
    tolerance: parts.at(-1)?.factor ?? 1,
    dimension: "duration",
    unsigned: false,
  };
}

function unitOf(text: string | undefined): Unit | undefined {
  if (text === undefined) return undefined;
  return units.find(([source]) => new RegExp(`^(?:${source})$`, "i").test(text))?.[1];
}

/**
 * Half of the last place that was written. Coordinates are often cut rather than rounded, so from three decimals
 * on a whole one; and a whole number of four or more digits that ends in zeros may have been rounded to them.
 */
function roundingOf(whole: string, decimals: number): number {
  if (decimals >= 3) return 10 ** -decimals;
  if (decimals > 0) return 0.5 * 10 ** -decimals;
  const zeros = /0+$/.exec(whole)?.[0].length ?? 0;
  return whole.length >= 4 ? 0.5 * 10 ** Math.min(zeros, whole.length - 2) : 0.5;
}

function isHedged(before: string): boolean {
  return /(?:about|around|roughly|approximately|approx\.?|nearly|almost|over|under|more than|less than|at least|up to|~|≈|c\.)\s*$/i.test(
    before,
  );
}

/**
 * Names are quoted, or written with a capital where grammar asks for none, or open a sentence or a list item as
 * the one who did something. Without a verb to tell, only in an answer that is English: other languages write
 * other words large.
 */
function takeNames(page: Page, words: ReadonlySet<string>): void {
  const invented = (text: string): readonly Claim[] | undefined =>
    wordsOf(text).every((word) => words.has(word) || ordinary.has(word))
      ? []
      : [{ kind: "name", text, known: false }];

  page.take(/["“”«`]([^"“”»`\n¤]{2,80})["“”»`]/g, ([, inner = ""]) =>
    /\p{Lu}|\d/u.test(inner) ? invented(inner.trim()) : undefined,
  );
  const word = "\\p{Lu}[\\p{L}’'-]*\\p{L}(?<!['’]s)";
  const opener = `(?<=^[\\s\\-*•>¤]*|[.!?:]\\s+\\**)${word}(?:\\s+${word})*`;
  page.take(new RegExp(`${opener}(?=['’]s\\b|\\s+(?:${deeds})\\b)`, "gmu"), ([text]) => invented(text));
  if (!/\b(?:the|of|and|is|has|with|from)\b/i.test(page.text)) return;
  page.take(new RegExp(`${opener}(?=\\**\\s*:|,\\s|\\s+and\\s+\\p{Lu})`, "gmu"), ([text]) => invented(text));
  page.take(new RegExp(`(?<=[\\p{L}\\d,;¤)]\\s{1,2})${word}(?:\\s+${word})*`, "gu"), ([text]) =>
    invented(text),
  );
}

/** What the subject of a sentence about tracking does. */
const deeds =
  "is|was|are|were|has|had|moved?|travell?ed|covered|went|stayed|roosted|flew|walked|ran|swam|drove|visited|spent|" +
  "reported|recorded|reached|left|crossed|rested|remained|returned|started|stopped";

/** Words that open sentences and label figures, months and weekdays aside never a name of something tracked. */
const ordinary = new Set(
  (
    "a an the this that these those it its they there he she we you i in on at to from of for by with and or but so if as " +
    "between during after before over within since until both each all none no not only one first last latest next " +
    "here however overall also therefore thus while when where which what who how why yes according based given note " +
    "please sorry unfortunately currently total mean average maximum minimum max min top distance speed time start end " +
    "date day days hour hours period span duration position positions location locations fix fixes point points " +
    "bounding box latitude longitude altitude heading accuracy battery outlier outliers subject subjects animal animals " +
    "bird birds vehicle vehicles person people team device devices species track tracks summary name names id ids number " +
    "count covered travelled traveled recorded north south east west northeast northwest southeast southwest northern " +
    "southern eastern western n s e w ne nw se sw gps utc gmt wgs am pm km kmh mps json api rfc iso data database result " +
    "results tool tools station answer question summary details evidence record records list table map earth equator " +
    "today yesterday tomorrow tonight january february march april may june july august september october november " +
    "december jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday " +
    "zero two three four five six seven eight nine ten eleven twelve"
  ).split(" "),
);

import { crc32 } from "node:zlib";

export type MediaType = "image/jpeg" | "image/png" | "image/webp";

/** A picture that shows what it showed before, and says nothing else. */
export interface CleanPicture {
  /** As its first bytes say. */
  readonly mediaType: MediaType;
  readonly bytes: Buffer;
}

/** These bytes are no picture of a kind that is known here, or not the whole of one. */
export class NotAPicture extends Error {
  override readonly name = "NotAPicture";
}

/**
 * A JPEG, PNG or WebP without its metadata: of EXIF nothing stays but which way is up, of XMP, IPTC, comments, embedded
 * previews and whatever follows the picture nothing at all. What it takes to show it right stays as it is: pixels,
 * animation, colour profile. The same picture gives the same bytes, and a clean one itself. Throws `NotAPicture`.
 */
export function withoutMetadata(picture: Uint8Array): CleanPicture {
  const bytes = Buffer.from(picture.buffer, picture.byteOffset, picture.byteLength);
  const mediaType = mediaTypeOf(bytes);
  return { mediaType, bytes: Buffer.concat(cleanParts[mediaType](bytes)) };
}

const pngStart = Buffer.from("89504e470d0a1a0a", "hex");

function mediaTypeOf(bytes: Buffer): MediaType {
  if (startsWith(bytes, Buffer.from([0xff, 0xd8, 0xff]))) return "image/jpeg";
  if (startsWith(bytes, pngStart)) return "image/png";
  if (bytes.toString("latin1", 0, 4) === "RIFF" && bytes.toString("latin1", 8, 12) === "WEBP")
    return "image/webp";
  throw new NotAPicture("this is no JPEG, PNG or WebP picture");
}

const cleanParts = {
  "image/jpeg": cleanJpeg,
  "image/png": cleanPng,
  "image/webp": cleanWebp,
} satisfies Record<MediaType, (bytes: Buffer) => Buffer[]>;

const brokenOff = () => new NotAPicture("the picture is damaged, or breaks off before its end");

const marker = { startOfScan: 0xda, end: 0xd9, app0: 0xe0, app1: 0xe1, app2: 0xe2, app14: 0xee } as const;
const exifStart = Buffer.from("Exif\0\0", "latin1");

/** Segments, one after the other, and after each start of a scan its data (ITU-T T.81, annex B). */
function cleanJpeg(bytes: Buffer): Buffer[] {
  const head: Buffer[] = [];
  const kept: Buffer[] = [];
  let orientation = 1;
  let hasFrame = false;
  let hasScan = false;
  let at = 2;
  for (;;) {
    if (bytes[at] !== 0xff) throw brokenOff();
    // Any number of them may fill the room before a marker.
    while (bytes[at + 1] === 0xff) at += 1;
    const code = bytes[at + 1];
    if (code === undefined) throw brokenOff();
    if (code === marker.end) break;
    if (!isSegment(code)) throw brokenOff();
    const end = at + 2 + uint16(bytes, at + 2);
    if (end < at + 4 || end > bytes.length) throw brokenOff();
    const segment = bytes.subarray(at, end);
    const content = segment.subarray(4);
    if (code === marker.app1 && startsWith(content, exifStart) && orientation === 1)
      orientation = orientationOf(content.subarray(exifStart.length));
    if (code === marker.app0) head.push(...plainJfif(content));
    else if (isNeededToShow(code, content)) kept.push(segment);
    if (isFrame(code)) hasFrame = true;
    at = end;
    if (code === marker.startOfScan) {
      hasScan = true;
      at = endOfScan(bytes, end);
      kept.push(bytes.subarray(end, at));
    }
  }
  if (!hasFrame || !hasScan) throw brokenOff();
  const exif =
    orientation === 1 ? [] : [segmentOf(marker.app1, Buffer.concat([exifStart, tiffOf(orientation)]))];
  // What comes after the end is dropped: phones put a film there, or more pictures, each with metadata of its own.
  return [Buffer.from([0xff, 0xd8]), ...head.slice(0, 1), ...exif, ...kept, Buffer.from([0xff, marker.end])];
}

/** Whether a length follows; restarts and the like have no place between segments. */
function isSegment(code: number): boolean {
  return code >= 0xc0 && !(code >= 0xd0 && code <= 0xd8);
}

/** Frames, tables, scans; of what applications add, colour profiles, and Adobe's word on which colours these are. */
function isNeededToShow(code: number, content: Buffer): boolean {
  if (code === marker.app2) return content.toString("latin1", 0, 12) === "ICC_PROFILE\0";
  if (code === marker.app14) return content.toString("latin1", 0, 5) === "Adobe";
  return code >= 0xc0 && code <= 0xdf;
}

function isFrame(code: number): boolean {
  // Between them are tables (C4, CC) and a reserved one (C8).
  return code >= 0xc0 && code <= 0xcf && code !== 0xc4 && code !== 0xc8 && code !== 0xcc;
}

/** The JFIF header with its density, and without its thumbnail. */
function plainJfif(content: Buffer): Buffer[] {
  const fields = 12;
  if (content.toString("latin1", 0, 5) !== "JFIF\0" || content.length < fields) return [];
  return [segmentOf(marker.app0, Buffer.concat([content.subarray(0, fields), Buffer.from([0, 0])]))];
}

/** Where the next marker is: FF in the data is followed by 00, and restarts (D0 to D7) are part of it. */
function endOfScan(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    const code = bytes[at + 1];
    if (code === undefined) break;
    if (code !== 0 && code !== 0xff && !(code >= 0xd0 && code <= 0xd7)) return at;
  }
  throw brokenOff();
}

function segmentOf(code: number, content: Buffer): Buffer {
  const start = Buffer.from([0xff, code, 0, 0]);
  start.writeUInt16BE(content.length + 2, 2);
  return Buffer.concat([start, content]);
}

/** What a PNG is shown by, animations included: https://www.w3.org/TR/png-3/#11Chunks */
const pngChunks = new Set(
  "IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD pHYs acTL fcTL fdAT".split(" "),
);

function cleanPng(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [pngStart];
  let orientation = 1;
  let hasData = false;
  for (let at = pngStart.length; ; ) {
    const end = at + 12 + uint32(bytes, at, "big");
    if (end > bytes.length) throw brokenOff();
    const type = bytes.toString("latin1", at + 4, at + 8);
    if ((parts.length === 1) !== (type === "IHDR")) throw brokenOff();
    if (type === "eXIf") orientation = orientationOf(bytes.subarray(at + 8, end - 4));
    // One that comes after the pixels is too late to be told before them, and nobody writes it there.
    if (type === "IDAT" && !hasData) parts.push(...pngOrientation(orientation));
    if (type === "IDAT") hasData = true;
    if (pngChunks.has(type)) parts.push(bytes.subarray(at, end));
    if (type === "IEND") break;
    at = end;
  }
  if (!hasData) throw brokenOff();
  return parts;
}

function pngOrientation(orientation: number): Buffer[] {
  if (orientation === 1) return [];
  const content = Buffer.concat([Buffer.from("eXIf"), tiffOf(orientation)]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(content.length - 4);
  check.writeUInt32BE(crc32(content));
  return [Buffer.concat([length, content, check])];
}

/** What a WebP is shown by: https://developers.google.com/speed/webp/docs/riff_container */
const webpChunks = new Set(["VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "ICCP"]);
const webpFlags = { exif: 0x08, xmp: 0x04 } as const;

function cleanWebp(bytes: Buffer): Buffer[] {
  const all = 8 + uint32(bytes, 4, "little");
  if (all > bytes.length) throw brokenOff();
  const parts: Buffer[] = [];
  let orientation = 1;
  let extended: Buffer | undefined;
  let hasData = false;
  for (let at = 12; at < all; ) {
    const size = uint32(bytes, at + 4, "little");
    const end = at + 8 + size + (size % 2);
    if (end > all) throw brokenOff();
    const type = bytes.toString("latin1", at, at + 4);
    if (type === "EXIF") orientation = orientationOf(withoutStart(bytes.subarray(at + 8, at + 8 + size)));
    if (/^(VP8[ L]|ANMF)$/.test(type)) hasData = true;
    if (webpChunks.has(type)) {
      // A copy: its flags are to be changed, and the picture that was handed in is not ours.
      const part = type === "VP8X" ? Buffer.from(bytes.subarray(at, end)) : bytes.subarray(at, end);
      if (type === "VP8X") extended = part;
      parts.push(part);
    }
    at = end;
  }
  if (!hasData || (extended && extended.length < 18)) throw brokenOff();
  // Only the extended form can have metadata.
  if (extended) {
    const flags = extended.readUInt8(8) & ~webpFlags.exif & ~webpFlags.xmp;
    extended.writeUInt8(orientation === 1 ? flags : flags | webpFlags.exif, 8);
    if (orientation !== 1) parts.push(webpOrientation(orientation));
  }
  const start = Buffer.from("RIFF\0\0\0\0WEBP", "latin1");
  start.writeUInt32LE(4 + parts.reduce((sum, { length }) => sum + length, 0), 4);
  return [start, ...parts];
}

/** Some write the name of a JPEG's segment before it. */
function withoutStart(exif: Buffer): Buffer {
  return startsWith(exif, exifStart) ? exif.subarray(exifStart.length) : exif;
}

function webpOrientation(orientation: number): Buffer {
  const tiff = tiffOf(orientation);
  const start = Buffer.from("EXIF\0\0\0\0", "latin1");
  start.writeUInt32LE(tiff.length, 4);
  return Buffer.concat([start, tiff]);
}

const orientationTag = 0x0112;
const shortType = 3;
const entryBytes = 12;

/** Which way is up, 1 to 8, in a TIFF block (EXIF 2.3, 4.6.4); 1, as it lies, where it does not say. */
function orientationOf(tiff: Buffer): number {
  const order = { II: "little", MM: "big" }[tiff.toString("latin1", 0, 2)] as Endian | undefined;
  if (!order || tiff.length < 10) return 1;
  const first = uint32(tiff, 4, order) + 2;
  if (first > tiff.length) return 1;
  const entries = Math.min(uint16(tiff, first - 2, order), Math.floor((tiff.length - first) / entryBytes));
  for (let at = first; at < first + entries * entryBytes; at += entryBytes) {
    if (uint16(tiff, at, order) !== orientationTag || uint16(tiff, at + 2, order) !== shortType) continue;
    const value = uint16(tiff, at + 8, order);
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

/** A TIFF block that says that and nothing else. */
function tiffOf(orientation: number): Buffer {
  const tiff = Buffer.from("4d4d002a00000008" + "0001" + "011200030000000100000000" + "00000000", "hex");
  tiff.writeUInt16BE(orientation, 18);
  return tiff;
}

type Endian = "big" | "little";

/** Throws `NotAPicture` where the bytes end before it. */
function uint16(bytes: Buffer, at: number, order: Endian = "big"): number {
  if (at + 2 > bytes.length) throw brokenOff();
  return order === "big" ? bytes.readUInt16BE(at) : bytes.readUInt16LE(at);
}

function uint32(bytes: Buffer, at: number, order: Endian): number {
  if (at + 4 > bytes.length) throw brokenOff();
  return order === "big" ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at);
}

function startsWith(bytes: Buffer, start: Buffer): boolean {
  return bytes.subarray(0, start.length).equals(start);
}

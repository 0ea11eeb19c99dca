import { randomBytes } from "node:crypto";
import { crc32, deflateSync } from "node:zlib";

/** What a test looks for in a picture, and is not to find. */
export const secrets = ["52.0907N", "Jane Doe", "GPS-LATITUDE"] as const;

/** A JPEG of one pixel; no two are the same unless they are given the same noise. */
export function jpeg({ exif, segments = [], noise = randomBytes(24), after }: JpegParts = {}): Buffer {
  return Buffer.concat([
    hex("ffd8"),
    ...(exif ? [jpegSegment(0xe1, Buffer.concat([Buffer.from("Exif\0\0"), exif]))] : []),
    jpegSegment(0xe0, Buffer.from("JFIF\0\x01\x02\x01\0\x48\0\x48\0\0", "latin1")),
    ...segments,
    jpegSegment(0xdb, Buffer.concat([hex("00"), Buffer.alloc(64, 1)])),
    jpegSegment(0xc0, hex("080001000101011100")),
    jpegSegment(0xc4, hex(`00${"01".padEnd(32, "0")}00`)),
    jpegSegment(0xda, hex("0101003f00")),
    // In the data FF is followed by 00, and restarts belong to it.
    Buffer.from(noise.toString("hex").replaceAll("ff", "fe"), "hex"),
    hex("ff00ffd0aa"),
    hex("ffd9"),
    ...(after ? [after] : []),
  ]);
}

export interface JpegParts {
  /** A TIFF block. */
  readonly exif?: Buffer;
  readonly segments?: readonly Buffer[];
  readonly noise?: Buffer;
  /** What follows the picture. */
  readonly after?: Buffer;
}

export function jpegSegment(code: number, content: Buffer): Buffer {
  const start = Buffer.from([0xff, code, 0, 0]);
  start.writeUInt16BE(content.length + 2, 2);
  return Buffer.concat([start, content]);
}

/** EXIF as a camera writes it: which way is up, who took it, and where it was. */
export function cameraExif(orientation: number, order: "II" | "MM" = "II"): Buffer {
  const tiff = Buffer.alloc(200);
  const u16 = (at: number, value: number) =>
    order === "II" ? tiff.writeUInt16LE(value, at) : tiff.writeUInt16BE(value, at);
  const u32 = (at: number, value: number) =>
    order === "II" ? tiff.writeUInt32LE(value, at) : tiff.writeUInt32BE(value, at);
  tiff.write(order, 0, "latin1");
  u16(2, 42);
  u32(4, 8);
  u16(8, 3);
  // Artist, orientation, and the GPS block at 100: latitude reference and latitude.
  const entries: [tag: number, type: number, count: number, value: number][] = [
    [0x013b, 2, 9, 60],
    [0x0112, 3, 1, 0],
    [0x8825, 4, 1, 100],
  ];
  entries.forEach(([tag, type, count, value], index) => {
    const at = 10 + index * 12;
    u16(at, tag);
    u16(at + 2, type);
    u32(at + 4, count);
    u32(at + 8, value);
  });
  u16(10 + 12 + 8, orientation);
  tiff.write("Jane Doe\0", 60, "latin1");
  u16(100, 1);
  u16(102, 2);
  u16(104, 2);
  u32(106, 9);
  u32(110, 140);
  tiff.write("52.0907N\0GPS-LATITUDE", 140, "latin1");
  return tiff;
}

/** A PNG of one pixel with these chunks before its data, and others after them. */
export function png(chunks: readonly Buffer[] = [], after: readonly Buffer[] = []): Buffer {
  return Buffer.concat([
    hex("89504e470d0a1a0a"),
    pngChunk("IHDR", hex("00000001000000010802000000")),
    pngChunk("gAMA", hex("0000b18f")),
    ...chunks,
    pngChunk("IDAT", deflateSync(hex("00ff8000"))),
    ...after,
    pngChunk("IEND", Buffer.alloc(0)),
  ]);
}

export function pngChunk(type: string, content: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(type, "latin1"), content]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(content.length);
  check.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, check]);
}

/** A WebP of one pixel in the extended form, with the flags of EXIF and XMP set. */
export function webp(chunks: readonly Buffer[] = []): Buffer {
  const body = Buffer.concat([
    Buffer.from("WEBP"),
    webpChunk("VP8X", hex("0c000000000000000000")),
    webpChunk("VP8L", hex("2f0000001007101188880808")),
    ...chunks,
  ]);
  const start = Buffer.from("RIFF\0\0\0\0", "latin1");
  start.writeUInt32LE(body.length, 4);
  return Buffer.concat([start, body]);
}

export function webpChunk(type: string, content: Buffer): Buffer {
  const start = Buffer.from(`${type}\0\0\0\0`, "latin1");
  start.writeUInt32LE(content.length, 4);
  return Buffer.concat([start, content, Buffer.alloc(content.length % 2)]);
}

function hex(digits: string): Buffer {
  return Buffer.from(digits, "hex");
}

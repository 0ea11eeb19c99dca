import assert from "node:assert/strict";
import { test } from "node:test";
import { NotAPicture, withoutMetadata } from "./image-metadata.ts";
import {
  cameraExif,
  jpeg,
  jpegSegment,
  png,
  pngChunk,
  secrets,
  webp,
  webpChunk,
} from "./pictures.fixture.ts";

const noise = Buffer.from("a picture's own bytes");
const xmp = Buffer.from("http://ns.adobe.com/xap/1.0/\0<x:xmpmeta exif:GPSLatitude='52.0907N'/>");
const xmpKey = Buffer.from("XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta exif:GPSLatitude='52.0907N'/>");
const says = (words: string) => Buffer.from(`${words} ${secrets.join(" ")}`);

/** One of each kind with metadata in every place that there is. */
function telling(orientation: number): Buffer[] {
  const exif = cameraExif(orientation);
  return [
    jpeg({
      exif,
      noise,
      segments: [
        jpegSegment(0xe1, xmp),
        jpegSegment(0xe2, says("MPF\0")),
        jpegSegment(0xed, says("Photoshop 3.0\0")),
        jpegSegment(0xfe, says("a comment")),
        jpegSegment(0xe0, says("JFXX\0")),
      ],
      after: Buffer.concat([says("a film"), jpeg({ exif })]),
    }),
    png(
      [pngChunk("eXIf", exif), pngChunk("iTXt", xmpKey), pngChunk("tEXt", says("Author\0"))],
      [pngChunk("tIME", Buffer.alloc(7)), pngChunk("zTXt", says("Comment\0"))],
    ),
    webp([webpChunk("EXIF", exif), webpChunk("XMP ", xmp), webpChunk("LINK", says("odd"))]),
  ];
}

/** Everything that follows these letters, up to so many bytes. */
function after(picture: Buffer, letters: string, bytes: number): string {
  const at = picture.indexOf(letters, 0, "latin1");
  return at < 0 ? "" : picture.toString("hex", at + letters.length, at + letters.length + bytes);
}

test("where a picture was taken, when, by whom and with what is gone, wherever it stood", () => {
  for (const picture of telling(1)) {
    for (const secret of secrets) assert.ok(picture.includes(secret));
    const { bytes, mediaType } = withoutMetadata(picture);
    for (const secret of [...secrets, "Exif", "eXIf", "EXIF", "xmp", "XMP", "MPF", "tIME", "film"])
      assert.ok(!bytes.includes(secret), `${mediaType} still has ${secret}`);
  }
});

test("what is left is the picture, byte for byte as one that never had metadata", () => {
  const [ofJpeg, ofPng, ofWebp] = telling(1).map((picture) => withoutMetadata(picture));
  assert.deepEqual(ofJpeg, { mediaType: "image/jpeg", bytes: jpeg({ noise }) });
  assert.deepEqual(ofPng, { mediaType: "image/png", bytes: png() });
  assert.equal(ofWebp?.mediaType, "image/webp");
  // Its flags of EXIF and XMP are unset.
  assert.equal(after(ofWebp?.bytes ?? Buffer.alloc(0), "VP8X", 5), "0a00000000");
});

test("which way is up stays, in a block that says nothing else", () => {
  for (const order of ["II", "MM"] as const) {
    const turned = withoutMetadata(jpeg({ exif: cameraExif(6, order) })).bytes;
    assert.equal(after(turned, "Exif\0\0", 26), "4d4d002a00000008000101120003000000010006000000000000");
    for (const secret of secrets) assert.ok(!turned.includes(secret));
  }
  const [, ofPng, ofWebp] = telling(8).map((picture) => withoutMetadata(picture).bytes);
  assert.match(after(ofPng ?? noise, "eXIf", 26), /^4d4d.*01120003000000010008/);
  assert.match(after(ofWebp ?? noise, "EXIF", 30), /^1a0000004d4d.*01120003000000010008/);
});

test("what decides how it looks stays: colour profiles, Adobe's transform, animation, resolution", () => {
  const profile = jpegSegment(0xe2, Buffer.from("ICC_PROFILE\0\x01\x01colours"));
  const adobe = jpegSegment(0xee, Buffer.from("Adobe\0\x64\0\0\0\0\x02", "latin1"));
  const restart = jpegSegment(0xdd, Buffer.from([0, 4]));
  const picture = jpeg({ segments: [profile, adobe, restart] });
  assert.deepEqual(withoutMetadata(picture).bytes, picture);
  const animated = png(
    [
      pngChunk("acTL", Buffer.alloc(8)),
      pngChunk("iCCP", Buffer.from("p\0\0")),
      pngChunk("pHYs", Buffer.alloc(9)),
    ],
    [pngChunk("fcTL", Buffer.alloc(26)), pngChunk("fdAT", Buffer.alloc(9))],
  );
  assert.deepEqual(withoutMetadata(animated).bytes, animated);
  const moving = webp([webpChunk("ANIM", Buffer.alloc(6)), webpChunk("ANMF", Buffer.alloc(31))]);
  assert.ok(withoutMetadata(moving).bytes.includes("ANMF"));
});

test("a clean picture stays as it is, and what is handed in is not touched", () => {
  for (const picture of telling(6)) {
    const before = Buffer.from(picture);
    const once = withoutMetadata(picture);
    assert.deepEqual(withoutMetadata(once.bytes), once);
    assert.deepEqual(picture, before);
  }
});

test("what is no picture, or not the whole of one, is said to be none", () => {
  const [ofJpeg, ofPng, ofWebp] = telling(6).map((picture) => withoutMetadata(picture).bytes);
  for (const [part, what] of [
    [Buffer.alloc(0), "nothing"],
    [Buffer.from("GIF89a"), "a GIF"],
    [Buffer.from("<svg xmlns='http://www.w3.org/2000/svg'/>"), "an SVG"],
    [Buffer.from([0xff, 0xd8, 0xff, 0xd9]), "an empty JPEG"],
    [ofJpeg?.subarray(0, -2), "a JPEG without an end"],
    [ofPng?.subarray(0, -1), "a PNG without an end"],
    [ofWebp?.subarray(0, -1), "a WebP without an end"],
    [Buffer.from("RIFF\x04\0\0\0WEBP", "latin1"), "an empty WebP"],
  ] as const)
    assert.throws(() => withoutMetadata(part ?? noise), NotAPicture, what);
});

test("whatever garbage comes, it is a picture without metadata or none, and soon said", () => {
  const below = numbers(20_261_124);
  const pictures = telling(6);
  let clean = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const picture = Buffer.from(pictures[round % pictures.length] ?? noise);
    for (let change = below(4); change >= 0; change -= 1) picture[below(picture.length)] = below(256);
    const part = picture.subarray(0, below(3) === 0 ? below(picture.length) : picture.length);
    try {
      const { bytes } = withoutMetadata(part);
      assert.ok(bytes.length <= part.length + 64);
      assert.deepEqual(withoutMetadata(bytes).bytes, bytes);
      clean += 1;
    } catch (error) {
      if (!(error instanceof NotAPicture)) throw error;
    }
  }
  assert.ok(clean > 1_000, `${clean} of them still were pictures`);
});

/** Whole numbers below a bound, the same ones for the same seed (xorshift). */
function numbers(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
}

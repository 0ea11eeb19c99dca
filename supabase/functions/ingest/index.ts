// The inbox for phones and collars that cannot reach their station: takes what a station's API takes, checked by a device
// key, and leaves it in the project until a station fetches it. docs/functions.md
import { deviceOfKey, leaveInInbox, projectOf } from "./project.ts";
import { problemResponse, Refusal } from "./refusal.ts";
import { readUpload, type Upload } from "./upload.ts";

Deno.serve(async (request) => {
  try {
    return await ingest(request);
  } catch (error) {
    return problemResponse(error);
  }
});

async function ingest(request: Request): Promise<Response> {
  const project = projectOf(Deno.env);
  // Before the body is read: who may report nothing costs nothing.
  const device = await deviceOfKey(project, keyOf(request));
  const [, format = ""] = /\/ingest\/([a-z]+)\/?$/.exec(new URL(request.url).pathname) ?? [];
  const upload = await readUpload(request, format, Date.now());
  const foreign = upload.fixes.find((fix) => device !== "*" && fix.device !== device);
  if (foreign) {
    throw new Refusal("device-foreign", "This key is another device's. Nothing of the request was stored.");
  }
  const isNew = upload.fixes.length === 0 || (await leaveInInbox(project, upload.fixes));
  return answerTo(upload, isNew);
}

/** First from where no gateway puts a key of its own. */
function keyOf(request: Request): string | undefined {
  const header = request.headers.get("x-api-key");
  const inQuery = new URL(request.url).searchParams.get("key");
  const [, bearer] = /^Bearer\s+(\S+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
  return header ?? inQuery ?? bearer;
}

/** As a station answers; only that it cannot know here what the station has already. */
function answerTo({ answer, fixes, rejected }: Upload, isNew: boolean): Response {
  if (answer === "silent") return new Response("", { headers: { "content-type": "text/plain" } });
  const distinct = new Set(fixes.map(({ device, time }) => `${time} ${device}`)).size;
  const accepted = isNew ? distinct : 0;
  return Response.json({ accepted, duplicates: fixes.length - accepted, rejected });
}

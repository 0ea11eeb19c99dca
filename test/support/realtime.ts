import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";

/** Stands for the part of Supabase's Realtime that a project runs and we do not: channels that carry broadcasts. */
export interface RealtimeStandIn extends AsyncDisposable {
  /** What `SUPABASE_URL` would be. */
  readonly url: string;
  /** Addresses that were asked for, keys and all. */
  readonly asked: string[];
  /** Cuts every connection. */
  readonly drop: () => void;
}

/** Serves version 2.0.0 of its protocol: JSON arrays, broadcasts in binary. */
export async function startRealtime(): Promise<RealtimeStandIn> {
  const asked: string[] = [];
  const members = new Map<Duplex, Set<string>>();
  const server = createServer((_request, response) => response.writeHead(404).end());
  server.on("upgrade", (request, socket) => {
    asked.push(request.url ?? "");
    const accept = createHash("sha1")
      .update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest("base64");
    const headers = ["upgrade: websocket", "connection: Upgrade", `sec-websocket-accept: ${accept}`];
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${headers.join("\r\n")}\r\n\r\n`);
    const topics = new Set<string>();
    members.set(socket, topics);
    socket.on("close", () => members.delete(socket));
    socket.on("error", () => undefined);
    eachFrame(socket, (opcode, payload) => {
      if (opcode === text) answer(socket, topics, payload.toString());
      else if (opcode === binary) {
        const { topic, frame } = broadcast(payload);
        for (const [other, its] of members)
          if (other !== socket && its.has(topic)) other.write(framed(binary, frame));
      } else if (opcode === closing) socket.end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    drop: () => {
      for (const socket of members.keys()) socket.destroy();
    },
    async [Symbol.asyncDispose]() {
      for (const socket of members.keys()) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

const [text, binary, closing] = [1, 2, 8];

function answer(socket: Duplex, topics: Set<string>, message: string): void {
  const [joinRef, ref, topic, event] = JSON.parse(message) as [string, string, string, string];
  if (event === "phx_join") topics.add(topic);
  if (event === "phx_leave") topics.delete(topic);
  const reply = [joinRef, ref, topic, "phx_reply", { status: "ok", response: {} }];
  socket.write(framed(text, Buffer.from(JSON.stringify(reply))));
}

/** What a client pushes (kind 3) as others get it (kind 4): without its references. */
function broadcast(pushed: Buffer): { topic: string; frame: Buffer } {
  const [, joinRef = 0, ref = 0, topic = 0, event = 0, metadata = 0, encoding = 0] = pushed;
  const start = 7 + joinRef + ref;
  const header = Buffer.from([4, topic, event, metadata, encoding]);
  return {
    topic: pushed.subarray(start, start + topic).toString(),
    frame: Buffer.concat([header, pushed.subarray(start)]),
  };
}

/** Calls back with each whole frame; a client's are masked, and ours are never in parts. */
function eachFrame(socket: Duplex, take: (opcode: number, payload: Buffer) => void): void {
  let rest = Buffer.alloc(0);
  socket.on("data", (data: Buffer) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 6) {
      const short = (rest[1] as number) & 127;
      const at = short === 126 ? 4 : 2;
      const length = short === 126 ? rest.readUInt16BE(2) : short;
      if (rest.length < at + 4 + length) return;
      const mask = rest.subarray(at, at + 4);
      const payload = rest.subarray(at + 4, at + 4 + length).map((byte, i) => byte ^ (mask[i % 4] as number));
      take((rest[0] as number) & 15, Buffer.from(payload));
      rest = rest.subarray(at + 4 + length);
    }
  });
}

function framed(opcode: number, payload: Buffer): Buffer {
  const head = payload.length < 126 ? [payload.length] : [126, payload.length >> 8, payload.length & 255];
  return Buffer.concat([Buffer.from([128 | opcode, ...head]), payload]);
}

/** What becomes of outputs: fetched from where they may come from only, kept whole or not at all. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isAllowed, OutputExpired, OutputRefused, OutputUnavailable } from "@/lib/fetching.ts";
import { storeOutput } from "@/lib/outputs.ts";
import type { OutputKind } from "@/lib/registry.ts";
import { openStorage, type Storage, StorageError } from "@/lib/storage.ts";

const PNG = Buffer.from("\x89PNG\r\n\x1a\n and more", "latin1");
const ID = "0123456789abcdef".repeat(2);

let folder: string;
let storage: Storage;
let server: Server;
let origin: string;
let answer: RequestListener;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "storage-"));
  storage = await openStorage(folder);
  answer = (_, response) => response.end(PNG);
  server = createServer((request, response) => answer(request, response));
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

function store(output: unknown, kind: OutputKind = "file", maxBytes = 1_000) {
  const allowed = { origin, token: "r8_test" };
  const signal = new AbortController().signal;
  return storeOutput(ID, output, kind, { storage, allowed, maxBytes, signal });
}

test("a file is stored under its own key, with its sum and type", async () => {
  const { files, output } = await store(`${origin}/out`);
  expect(output).toBe(`/files/${ID}/0`);
  expect(files).toMatchObject([
    { key: `${ID}/0.png`, content_type: "image/png", size: PNG.length },
  ]);
  const read = await Array.fromAsync(await storage.get(`${ID}/0.png`));
  expect(Buffer.concat(read)).toEqual(PNG);
  const part = await Array.fromAsync(await storage.get(`${ID}/0.png`, { start: 1, end: 4 }));
  expect(Buffer.concat(part).toString()).toBe("PNG");
});

test("the type is seen where the first bytes come one by one", async () => {
  answer = async (_, response) => {
    for (const byte of Buffer.from("RIFF....WAVEfmt ")) {
      response.write(Buffer.of(byte));
      await new Promise((sent) => setTimeout(sent, 5));
    }
    response.end();
  };
  const { files } = await store(`${origin}/out`);
  expect(files).toMatchObject([{ key: `${ID}/0.wav`, size: 16 }]);
});

test("URLs at any depth of JSON are ours afterwards", async () => {
  const { output, files } = await store({ a: [`${origin}/1`], b: "text" }, "json");
  expect(output).toEqual({ a: [`/files/${ID}/0`], b: "text" });
  expect(files).toHaveLength(1);
});

test.each([
  "http://replicate.delivery/x",
  "https://replicate.delivery.example/x",
  "https://replicate.delivery:8443/x",
  "https://user@replicate.delivery/x",
  "https://example.com/?replicate.delivery",
  "file:///etc/passwd",
  "http://169.254.169.254/latest",
])("%s is nowhere to fetch from", (url) => {
  expect(isAllowed(url, { origin: null, token: "" })).toBe(false);
});

test("Replicate's hosts are", () => {
  for (const url of ["https://replicate.delivery/x", "https://pbxt.replicate.delivery/x"]) {
    expect(isAllowed(url, { origin: null, token: "" })).toBe(true);
  }
});

test("a redirect to another host is refused", async () => {
  answer = (_, response) => response.writeHead(302, { location: "http://127.0.0.1:9/" }).end();
  await expect(store(`${origin}/out`)).rejects.toThrow(OutputRefused);
});

test("the token is sent only where an allowed host asks for it", async () => {
  const sent: (string | undefined)[] = [];
  answer = ({ headers }, response) => {
    sent.push(headers.authorization);
    response.writeHead(headers.authorization ? 200 : 401).end(PNG);
  };
  await store(`${origin}/out`);
  expect(sent).toEqual([undefined, "Bearer r8_test"]);
  sent.length = 0;
  answer = ({ url, headers }, response) => {
    sent.push(headers.authorization);
    const status = url === "/b" ? 200 : headers.authorization ? 302 : 401;
    response.writeHead(status, { location: "/b" }).end(PNG);
  };
  await store(`${origin}/out`);
  expect(sent).toEqual([undefined, "Bearer r8_test", undefined]);
});

test.each([
  [404, OutputExpired],
  [410, OutputExpired],
  [500, OutputUnavailable],
])("%d", async (status, error) => {
  answer = (_, response) => response.writeHead(status).end();
  await expect(store(`${origin}/out`)).rejects.toThrow(error);
});

test.each(["announced", "unannounced"])("too large, %s: nothing is left", async (how) => {
  answer = (_, response) => {
    if (how === "announced") response.setHeader("content-length", 2_000);
    response.end(Buffer.alloc(2_000));
  };
  await expect(store(`${origin}/out`)).rejects.toThrow(OutputRefused);
  expect(await readdir(folder, { recursive: true })).not.toContainEqual(
    expect.stringMatching(/\./),
  );
});

test("a body that is shorter than announced is not kept", async () => {
  answer = (_, response) => {
    response.writeHead(200, { "content-length": 2_00 });
    response.write("x");
    setTimeout(() => response.destroy(), 50);
  };
  await expect(store(`${origin}/out`)).rejects.toThrow(OutputUnavailable);
});

test.each([
  ["file", ["a", "b"]],
  ["files", "https://replicate.delivery/x"],
  ["text", { not: "text" }],
  ["file", "plain text"],
] as const)("an output that is no %s is refused", async (kind, output) => {
  await expect(store(output, kind)).rejects.toThrow(OutputRefused);
});

test("what is deleted is gone, and no key leads out", async () => {
  await store(`${origin}/out`);
  await storage.delete(`${ID}/`);
  await expect(storage.get(`${ID}/0.png`)).rejects.toThrow(StorageError);
  await expect(storage.delete("../")).rejects.toThrow(StorageError);
  await storage.check();
});

/** What Vercel's own SDK makes of the stand-in, unchanged: PROJECT; prints JSON. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const project = process.argv[2] ?? "";
const { resolve } = createRequire(join(project, "package.json"));
const { del, get, head, list, put } = await import(pathToFileURL(resolve("@vercel/blob")).href);

const LARGE = Buffer.alloc(20 * 2 ** 20, "large");
const access = "private";

async function refusal(asked: Promise<unknown>): Promise<string> {
  return asked.then(
    () => "nothing",
    (error) => `${error.constructor.name}: ${error.message}`,
  );
}

const stored = await put("a/large.bin", LARGE, { access, multipart: true, contentType: "x/y" });
const read = await get(stored.url, { access });
const back = Buffer.from(await new Response(read.stream).arrayBuffer());
const suffixed = await put("a/small.txt", "small", { access, addRandomSuffix: true });
const [large, small] = [await head("a/large.bin"), await head(suffixed.url)];
const first = await list({ prefix: "a/", limit: 1 });
const second = await list({ prefix: "a/", limit: 1, cursor: first.cursor });
const token = process.env.BLOB_READ_WRITE_TOKEN ?? "";
const [store = "", secret = ""] = token.split("_").slice(3);
const said = {
  same: back.equals(LARGE),
  type: [read.blob.contentType, large.contentType],
  sizes: [read.blob.size, large.size, small.size],
  suffixed: suffixed.pathname,
  listed: [first, second].map((page) => [page.blobs.length, page.hasMore, Boolean(page.cursor)]),
  again: await refusal(put("a/large.bin", "other", { access })),
  againInParts: await refusal(put("a/large.bin", LARGE, { access, multipart: true })),
  replaced: (await put("a/large.bin", "other", { access, allowOverwrite: true })).pathname,
  public: await refusal(put("b", "b", { access: "public" })),
  secret: await refusal(list({ token: token.replace(secret, "another") })),
  store: await refusal(list({ token: token.replace(store, "another") })),
  missing: await refusal(head("a/none")),
  absent: await get("a/none", { access }),
  reader: await refusal(get("a/large.bin", { access, token: token.replace(secret, "another") })),
};
await del([stored.url, suffixed.url]);
console.log(JSON.stringify({ ...said, left: (await list()).blobs.length }));

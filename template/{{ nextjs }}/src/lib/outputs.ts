/** From the URLs that Replicate answers with, which expire within an hour, into our own storage. */
import mime from "mime-types";
import { type AllowedHosts, fetchOutput, isAllowed, OutputRefused } from "./fetching.ts";
import { type StoredFile, type StoredUrl, storedUrl } from "./prediction.ts";
import type { OutputKind } from "./registry.ts";
import type { Storage } from "./storage.ts";

const MOST_FILES = 1_000;
const MOST_LEVELS = 1_000;

/** How many of the first bytes tell. */
const SNIFFED = 12;
const DATA_URI = /^data:(?:[\w.+-]{1,63}\/[\w.+-]{1,63}(?:;[\w.+=-]+)*|;base64),/;
const CONTENT_TYPE = /^[\w.+-]{1,63}\/[\w.+-]{1,63}$/;
const MAGIC: [string, string][] = [
  ["\x89PNG\r\n\x1a\n", "image/png"],
  ["\xff\xd8\xff", "image/jpeg"],
  ["GIF8", "image/gif"],
  ["ID3", "audio/mpeg"],
  ["\xff\xfb", "audio/mpeg"],
  ["OggS", "audio/ogg"],
  ["fLaC", "audio/flac"],
  ["\x1aE\xdf\xa3", "video/webm"],
];
const BRANDS: Record<string, string> = {
  avif: "image/avif",
  "M4A ": "audio/mp4",
  "qt  ": "video/quicktime",
};
const RIFF: Record<string, string> = { WAVE: "audio/wav", WEBP: "image/webp" };
/** What may hold sound, or film, or both: there the announced type knows better. */
const CONTAINERS = new Set(["audio/ogg", "video/webm", "video/mp4"]);

export interface StoreOptions {
  storage: Storage;
  allowed: AllowedHosts;
  /** Bounds all files together. */
  maxBytes: number;
  signal: AbortSignal;
}

/**
 * Store every file of an output as `<id>/<index>.<ext>`; returns them and our own output.
 *
 * Keys are deterministic: a second run replaces.
 *
 * @throws OutputRefused, OutputExpired, OutputUnavailable, StorageError.
 */
export async function storeOutput(
  id: string,
  remote: unknown,
  kind: OutputKind,
  { storage, allowed, maxBytes, signal }: StoreOptions,
): Promise<{ files: StoredFile[]; output: unknown }> {
  const urls: string[] = [];
  const ours = (url: string): StoredUrl => storedUrl(id, urls.push(url) - 1);
  const output = replaced(shaped(remote, kind), kind, allowed, ours);
  if (urls.length > MOST_FILES) {
    throw new OutputRefused(`The output has more than ${MOST_FILES} files.`);
  }
  const files: StoredFile[] = [];
  let left = maxBytes;
  for (const [index, url] of urls.entries()) {
    const { announced, chunks } = await fetchOutput(url, allowed, left, signal);
    const body = await opened(chunks);
    const type = contentType(announced, body.first, url);
    const key = `${id}/${index}.${mime.extension(type) || "bin"}`;
    const file = await storage.put(key, body.chunks, type, signal);
    left -= file.size;
    files.push(file);
  }
  return { files, output };
}

/** The output if it has the shape that the registry promises. */
function shaped(output: unknown, kind: OutputKind): unknown {
  switch (kind) {
    case "json":
      return output;
    case "file": {
      const one = Array.isArray(output) && output.length === 1 ? output[0] : output;
      if (typeof one === "string") return one;
      break;
    }
    case "files":
      if (isTexts(output)) return output;
      break;
    default:
      if (typeof output === "string") return output;
      if (isTexts(output)) return output.join("");
  }
  throw new OutputRefused(`The output is not of the promised kind: ${kind}.`);
}

function isTexts(output: unknown): output is string[] {
  return Array.isArray(output) && output.every((item) => typeof item === "string");
}

/** The output with each URL of Replicate's exchanged, at any depth, in the order of the JSON. */
function replaced(
  output: unknown,
  kind: OutputKind,
  allowed: AllowedHosts,
  ours: (url: string) => StoredUrl,
  level = 0,
): unknown {
  if (level > MOST_LEVELS) throw new OutputRefused("The output is nested too deeply.");
  const inner = (item: unknown) => replaced(item, kind, allowed, ours, level + 1);
  if (typeof output === "string") {
    if (DATA_URI.test(output) || isAllowed(output, allowed)) return ours(output);
    if (kind === "file" || kind === "files") {
      throw new OutputRefused(`The output is not a URL of Replicate's: ${output.slice(0, 200)}`);
    }
    return output;
  }
  if (Array.isArray(output)) return output.map(inner);
  if (typeof output === "object" && output !== null) {
    return Object.fromEntries(Object.entries(output).map(([name, item]) => [name, inner(item)]));
  }
  return output;
}

/** The first bytes, and the whole body. */
async function opened(chunks: AsyncIterable<Uint8Array>) {
  const iterator = chunks[Symbol.asyncIterator]();
  let first = Buffer.alloc(0);
  while (first.length < SNIFFED) {
    const { done, value } = await iterator.next();
    if (done) break;
    first = Buffer.concat([first, value]);
  }
  async function* whole() {
    try {
      if (first.length > 0) yield first;
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return { first: first.subarray(0, SNIFFED).toString("latin1"), chunks: whole() };
}

/** By the first bytes where they are known ones, else as announced, else by the URL's ending. */
export function contentType(announced: string, first: string, url: string): string {
  const found = sniffed(first);
  const vague = found !== null && CONTAINERS.has(found) && /^(audio|video)\//.test(announced);
  if (found !== null && !vague) return found;
  if (CONTENT_TYPE.test(announced) && !announced.endsWith("/octet-stream")) return announced;
  const path = url.startsWith("data:") ? "" : new URL(url).pathname;
  return mime.lookup(path) || "application/octet-stream";
}

function sniffed(first: string): string | null {
  const known = MAGIC.find(([magic]) => first.startsWith(magic));
  if (known !== undefined) return known[1];
  const brand = first.slice(8, 12);
  if (first.startsWith("RIFF")) return RIFF[brand] ?? null;
  return first.slice(4, 8) === "ftyp" ? (BRANDS[brand] ?? "video/mp4") : null;
}

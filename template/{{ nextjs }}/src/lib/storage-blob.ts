/** Outputs in a private store of Vercel Blob; the token is in BLOB_READ_WRITE_TOKEN. */
import {
  BlobAccessError,
  BlobStoreNotFoundError,
  createMultipartUploader,
  del,
  get,
  type ListCommandOptions,
  list,
  put,
} from "@vercel/blob";
import type { StoredFile } from "./prediction.ts";
import {
  below,
  type Chunks,
  Counted,
  PART_BYTES,
  probe,
  type Span,
  type Storage,
  StorageError,
  words,
} from "./storage.ts";

const ACCESS = "private";

export class BlobStorage implements Storage {
  readonly #prefix: string;

  /** @param url `vercel-blob://prefix`, the prefix may be empty. */
  constructor(url: string) {
    this.#prefix = url.slice("vercel-blob://".length).split("/").filter(Boolean).join("/");
    // The SDK's own ten take a quarter of an hour; what failed is tried again by us anyway.
    process.env.VERCEL_BLOB_RETRIES ||= "2";
  }

  async put(key: string, chunks: Chunks, type: string, signal?: AbortSignal): Promise<StoredFile> {
    const path = below(this.#prefix, key);
    const counted = new Counted(chunks, signal);
    // Without a reason: the SDK takes any error but AbortError for one to try again.
    const ended = new AbortController();
    const stop = () => ended.abort();
    await counted.sent(() => send(path, type, counted, ended.signal), stop, explained);
    return counted.stored(key, type);
  }

  async get(key: string, span?: Span): Promise<Chunks> {
    const headers = span ? { headers: { Range: `bytes=${span.start}-${span.end - 1}` } } : {};
    let found: Awaited<ReturnType<typeof get>>;
    try {
      found = await get(below(this.#prefix, key), { access: ACCESS, ...headers });
    } catch (error) {
      throw explained(error);
    }
    if (!found?.stream) throw new StorageError("there is no such object");
    return found.stream as unknown as Chunks;
  }

  async delete(prefix: string): Promise<void> {
    const where: ListCommandOptions = { prefix: below(this.#prefix, prefix) };
    try {
      for (let more = true; more; ) {
        const { blobs, hasMore, cursor } = await list(where);
        if (blobs.length > 0) await del(blobs.map((blob) => blob.url));
        if (cursor) where.cursor = cursor;
        more = hasMore;
      }
    } catch (error) {
      throw explained(error);
    }
  }

  /** A private store's objects are handed to Replicate by an upload. */
  async sign(): Promise<null> {
    return null;
  }

  check(): Promise<void> {
    return probe(this);
  }
}

/** In one piece, or, where it is larger than a part, in parts. */
async function send(
  path: string,
  contentType: string,
  chunks: Chunks,
  abortSignal: AbortSignal,
): Promise<void> {
  const options = {
    access: ACCESS,
    addRandomSuffix: false,
    allowOverwrite: true, // keys are deterministic: a second run replaces
    contentType,
    abortSignal,
  } as const;
  const parts = inParts(chunks);
  const first = (await parts.next()).value ?? Buffer.alloc(0);
  if (first.length < PART_BYTES) {
    await put(path, first, options);
    return;
  }
  // One part after the other: the SDK's own multipart upload holds six of them in memory.
  const upload = await createMultipartUploader(path, options);
  const done = [await upload.uploadPart(1, first)];
  for await (const part of parts) {
    done.push(await upload.uploadPart(done.length + 1, part));
  }
  await upload.complete(done);
}

/** The same bytes in parts of PART_BYTES, the last one shorter; the next one overwrites each. */
async function* inParts(chunks: Chunks): AsyncGenerator<Buffer> {
  const part = Buffer.allocUnsafe(PART_BYTES);
  let size = 0;
  for await (const chunk of chunks) {
    for (let start = 0; start < chunk.byteLength; ) {
      const taken = chunk.subarray(start, start + PART_BYTES - size);
      part.set(taken, size);
      start += taken.byteLength;
      size += taken.byteLength;
      if (size === PART_BYTES) {
        yield part;
        size = 0;
      }
    }
  }
  if (size > 0) yield part.subarray(0, size);
}

function explained(error: unknown): StorageError {
  if (error instanceof BlobAccessError || error instanceof BlobStoreNotFoundError) {
    return new StorageError("the storage refuses these credentials", { cause: error });
  }
  // Where the network fails, only the cause says how.
  const cause = error instanceof TypeError && error.cause ? error.cause : error;
  return new StorageError(words(cause), { cause: error });
}

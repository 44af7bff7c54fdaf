/** Where outputs and uploads are kept: five methods, on a disk, S3, R2 or Vercel Blob. */
import { createHash, randomBytes } from "node:crypto";
import type { StoredFile } from "./prediction.ts";
import { SettingsError } from "./settings.ts";

export const PART_BYTES = 8 * 2 ** 20;
const CHECK_SECONDS = 10;

/** The storage refused or cannot be reached; it may work again later. */
export class StorageError extends Error {
  override readonly name = "StorageError";

  /** By name, as a Problem. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return (value as Error | null)?.name === "StorageError";
  }
}

/** The first byte, and the one after the last. */
export interface Span {
  start: number;
  end: number;
}

export type Chunks = AsyncIterable<Uint8Array>;

/** One bucket, store or folder, with an optional prefix. */
export interface Storage {
  /**
   * Stream an object into the storage, in parts; nothing is left where it ends early.
   *
   * @throws StorageError the store failed. What the chunks throw comes through unchanged.
   */
  put(key: string, chunks: Chunks, type: string, signal?: AbortSignal): Promise<StoredFile>;

  /**
   * Stream an object, or a span of it.
   *
   * @throws StorageError it is not there, or the store failed: here, or while it is read.
   */
  get(key: string, span?: Span): Promise<Chunks>;

  /** Remove every object below the prefix, `<id>/`; throws StorageError. */
  delete(prefix: string): Promise<void>;

  /** A URL that anyone may read for so long; null where the internet cannot reach us. */
  sign(key: string, seconds: number): Promise<string | null>;

  /** Write, read and remove a few bytes; throws StorageError with the reason. */
  check(): Promise<void>;
}

/**
 * The storage that `STORAGE_URL` names: a path, `s3://bucket/prefix` or `vercel-blob://prefix`;
 * credentials come from the provider's variables.
 *
 * @throws SettingsError the URL names no storage that this project knows.
 */
export async function openStorage(url: string): Promise<Storage> {
  const scheme = /^([\w-]+):\/\//.exec(url)?.[1] ?? "file";
  switch (scheme) {
    case "file": {
      const { DiskStorage } = await import("./storage-disk.ts");
      return new DiskStorage(url.replace("file://", ""));
    }
    case "s3": {
      const { S3Storage } = await import("./storage-s3.ts");
      return new S3Storage(url);
    }
    case "vercel-blob": {
      const { BlobStorage } = await import("./storage-blob.ts");
      return new BlobStorage(url);
    }
    default:
      throw new SettingsError(`STORAGE_URL: ${scheme}:// is none of a path, s3://, vercel-blob://`);
  }
}

/** What passes through is counted and hashed; what breaks it is kept apart from the store's errors. */
export class Counted {
  size = 0;
  broken: unknown;
  readonly #digest = createHash("sha256");
  readonly #chunks: Chunks;
  readonly #signal: AbortSignal | undefined;

  constructor(chunks: Chunks, signal?: AbortSignal) {
    this.#chunks = chunks;
    this.#signal = signal;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of this.#chunks) {
        this.#signal?.throwIfAborted();
        this.#digest.update(chunk);
        this.size += chunk.byteLength;
        yield chunk;
      }
    } catch (error) {
      this.broken = error;
      throw error;
    }
  }

  stored(key: string, contentType: string): StoredFile {
    return { key, content_type: contentType, size: this.size, sha256: this.#digest.digest("hex") };
  }

  /**
   * Wait for the upload, which `stop` ends where the signal says so.
   *
   * @throws what `reason` says.
   */
  async sent(
    upload: () => Promise<unknown>,
    stop: () => void,
    explain: (error: unknown) => StorageError,
  ): Promise<void> {
    this.#signal?.addEventListener("abort", stop);
    try {
      await upload();
    } catch (error) {
      throw this.reason(error, explain);
    } finally {
      this.#signal?.removeEventListener("abort", stop);
    }
  }

  /** What to throw where storing failed with this error. */
  reason(error: unknown, explain: (error: unknown) => StorageError): unknown {
    if (this.#signal?.aborted) return this.#signal.reason;
    return this.broken ?? explain(error);
  }
}

/** The check that every storage shares. */
export async function probe(storage: Storage): Promise<void> {
  const folder = `check/${randomBytes(8).toString("hex")}`;
  async function* ok() {
    yield Buffer.from("ok");
  }
  async function writeAndRead() {
    await storage.put(`${folder}/probe`, ok(), "text/plain", signal);
    const read = Buffer.concat(await Array.fromAsync(await storage.get(`${folder}/probe`)));
    if (read.toString() !== "ok") throw new StorageError("what was written is not what is read");
    await storage.delete(`${folder}/`);
  }
  const signal = AbortSignal.timeout(CHECK_SECONDS * 1000);
  const late = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () =>
      reject(new StorageError(`no answer within ${CHECK_SECONDS} s`)),
    );
  });
  await Promise.race([writeAndRead(), late]);
}

/** A path below the storage's own, without a way out of it. */
export function below(prefix: string, key: string): string {
  if (key.split("/").includes("..")) throw new StorageError("the key leads out of the storage");
  return prefix ? `${prefix}/${key}` : key;
}

/** What went wrong, in a line for a person. */
export function words(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.replace(/\s+/g, " ").trim().slice(0, 300) || "the storage failed";
}

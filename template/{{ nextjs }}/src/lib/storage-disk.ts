/** Outputs in a folder of this machine. */
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import type { StoredFile } from "./prediction.ts";
import {
  below,
  type Chunks,
  Counted,
  probe,
  type Span,
  type Storage,
  StorageError,
  words,
} from "./storage.ts";

const READ_BYTES = 2 ** 18;

export class DiskStorage implements Storage {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = resolve(folder);
  }

  async put(key: string, chunks: Chunks, type: string, signal?: AbortSignal): Promise<StoredFile> {
    const path = below(this.#folder, key);
    // Beside it until it is whole: what a killed process leaves goes with its folder.
    const part = `${path}.${crypto.randomUUID()}.part`;
    const counted = new Counted(chunks, signal);
    try {
      await mkdir(dirname(path), { recursive: true });
      await pipeline(counted, createWriteStream(part, { flush: true }));
      await rename(part, path);
    } catch (error) {
      await rm(part, { force: true }).catch(() => undefined);
      throw counted.reason(error, explained);
    }
    return counted.stored(key, type);
  }

  async get(key: string, span?: Span): Promise<Chunks> {
    const path = below(this.#folder, key);
    try {
      await stat(path);
    } catch (error) {
      throw explained(error);
    }
    const range = span ? { start: span.start, end: span.end - 1 } : {};
    return createReadStream(path, { ...range, highWaterMark: READ_BYTES });
  }

  async delete(prefix: string): Promise<void> {
    try {
      await rm(below(this.#folder, prefix), { recursive: true, force: true });
    } catch (error) {
      throw explained(error);
    }
  }

  async sign(): Promise<null> {
    return null;
  }

  check(): Promise<void> {
    return probe(this);
  }
}

function explained(error: unknown): StorageError {
  const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
  return new StorageError(missing ? "there is no such object" : words(error), { cause: error });
}

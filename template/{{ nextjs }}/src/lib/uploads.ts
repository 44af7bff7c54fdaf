/** Files that callers send, to be used as inputs for a day; and whom a limit counts. */
import { randomBytes } from "node:crypto";
import { networkOf } from "./addresses.ts";
import { LimitReached } from "./limits.ts";
import { now, type StoredFile, type StoredUrl, storedUrl } from "./prediction.ts";
import { Problem } from "./problems.ts";
import type { Settings } from "./settings.ts";
import type { Chunks, Storage } from "./storage.ts";
import type { UploadStore } from "./upload-store.ts";

/** Seconds for which an upload can be used, as Replicate's own files can. */
export const UPLOAD_SECONDS = 86_400;
/** Seconds after that in which a prediction may still wait for its start, or Replicate fetch it. */
export const UPLOAD_MARGIN = 2 * 3600;
/** Seconds for which webhooks are kept: no repetition of one comes after minutes. */
export const EVENT_SECONDS = 86_400;

/** The uploads of a service. */
export class Uploads {
  readonly #settings: Settings;
  readonly #store: UploadStore;
  readonly #storage: Storage;

  constructor(settings: Settings, store: UploadStore, storage: Storage) {
    this.#settings = settings;
    this.#store = store;
    this.#storage = storage;
  }

  /**
   * Store a file of the caller's, streamed; it is theirs for UPLOAD_SECONDS.
   *
   * @throws Problem 429 a limit is reached; no chunk was taken.
   * @throws StorageError the storage failed.
   */
  async save(caller: string, address: string, type: string, chunks: Chunks): Promise<StoredUrl> {
    const id = randomBytes(16).toString("hex");
    const upload = { id, owner: caller, address: networkOf(address), created_at: now() };
    try {
      await this.#store.add({ ...upload, file: null }, this.#settings.limits);
    } catch (error) {
      throw error instanceof LimitReached ? limited(error) : error;
    }
    const file = await this.#storage.put(`uploads/${id}/0`, chunks, type);
    await this.#store.keep(id, file);
    return storedUrl(id, 0);
  }

  /** The caller's own upload, if it can be used now, or could `at` some time. */
  async find(caller: string, id: string, at = now()): Promise<StoredFile | null> {
    const upload = await this.#store.get(id);
    if (upload?.owner !== caller) return null;
    return at < upload.created_at + UPLOAD_SECONDS ? upload.file : null;
  }

  /**
   * Erase uploads that nobody can need any more, and webhooks that were kept for a day.
   *
   * @throws StorageError the rest waits for the next time.
   */
  async tidy(at: number): Promise<void> {
    await this.#store.forgetEvents(at - EVENT_SECONDS);
    const before = at - UPLOAD_SECONDS - UPLOAD_MARGIN;
    for (;;) {
      const old = await this.#store.old(before);
      if (old.length === 0) return;
      for (const { id } of old) {
        await this.#storage.delete(`uploads/${id}/`);
        await this.#store.forget(id);
      }
    }
  }
}

/** The answer to whoever reached a limit. */
export function limited(limit: LimitReached): Problem {
  const detail = `Nothing was started. Try again in ${Math.round(limit.retryAfter)} s.`;
  return new Problem(429, limit.message, detail, { retryAfter: limit.retryAfter });
}

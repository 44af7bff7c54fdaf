/**
 * Callers who wait for a change: one look at the database serves all of them, so that however many
 * wait, they never take the connections that answer webhooks.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Row } from "./prediction.ts";
import type { Store } from "./store.ts";

/** In seconds. */
const LOOK_EVERY = 0.25;

/** What someone waits for; `notice` gets null where the row is gone. */
interface Watcher {
  id: string;
  notice: (row: Row | null) => void;
  fail: (error: unknown) => void;
}

export class Waiting {
  readonly #store: Store;
  readonly #watchers = new Set<Watcher>();
  #looking = false;

  constructor(store: Store) {
    this.#store = store;
  }

  /** The row as soon as it is `enough` or gone (null), or as it is when the time is out. */
  async until(
    row: Row,
    seconds: number,
    enough: (row: Row) => boolean,
    signal?: AbortSignal,
  ): Promise<Row | null> {
    let last = row;
    const { promise, resolve, reject } = Promise.withResolvers<Row | null>();
    const watcher: Watcher = {
      id: row.id,
      notice: (now) => {
        if (now === null || enough(now)) resolve(now);
        else last = now;
      },
      fail: reject,
    };
    const timer = setTimeout(() => resolve(last), seconds * 1000);
    signal?.addEventListener("abort", () => resolve(last), { once: true });
    this.#watchers.add(watcher);
    void this.#look();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#watchers.delete(watcher);
    }
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    while (this.#watchers.size > 0) {
      await sleep(LOOK_EVERY * 1000);
      const watchers = [...this.#watchers];
      try {
        const ids = [...new Set(watchers.map((watcher) => watcher.id))];
        const rows = ids.length > 0 ? await this.#store.many(ids) : [];
        const found = new Map(rows.map((row) => [row.id, row]));
        for (const watcher of watchers) watcher.notice(found.get(watcher.id) ?? null);
      } catch (error) {
        for (const watcher of watchers) watcher.fail(error);
      }
    }
    this.#looking = false;
  }
}

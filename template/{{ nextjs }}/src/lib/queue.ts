/** What workers ask of the database: the row is the queue (`due_at`) and the fence (`attempts`). */
import type { ExpressionBuilder, Kysely } from "kysely";
import {
  type Database,
  decoded,
  type Event,
  encoded,
  flagged,
  type Query,
  type Tables,
} from "./database.ts";
import { now, OVER, type Row } from "./prediction.ts";

export class Queue {
  readonly #db: Database;
  readonly #query: Kysely<Tables>;

  constructor(db: Database) {
    this.#db = db;
    this.#query = db.query;
  }

  /** Take the longest due row for `lease` seconds; no other worker gets it meanwhile. */
  async claim(at: number, lease: number): Promise<Row | null> {
    const due = (db: Query) =>
      db
        .selectFrom("predictions")
        .select("id")
        .where("due_at", "<=", at)
        .orderBy("due_at")
        .limit(1);
    if (!(await due(this.#query).executeTakeFirst())) return null;
    return await this.#query.transaction().execute(async (db) => {
      const free = this.#db.isPostgres ? due(db).forUpdate().skipLocked() : due(db);
      const found = await free.executeTakeFirst();
      if (!found) return null;
      const taken = await db
        .updateTable("predictions")
        .set(encoded({ due_at: at + lease, leased: true }, this.#db))
        .set((e) => ({ attempts: e("attempts", "+", 1) }))
        .where("id", "=", found.id)
        .returningAll()
        .executeTakeFirstOrThrow();
      return decoded(taken, this.#db);
    });
  }

  /** Lengthen the lease; false where another worker has the row. */
  async renew(row: Row, until: number): Promise<boolean> {
    return await this.#query
      .transaction()
      .execute((db) => this.#fenced(db, row, { due_at: until }));
  }

  /** Note that the create goes out now; false where the row was canceled or lost. */
  async markSent(row: Row, at: number): Promise<boolean> {
    return await this.#query.transaction().execute(async (db) => {
      const marked = await db
        .updateTable("predictions")
        .set({ sent_at: at })
        .where("id", "=", row.id)
        .where("attempts", "=", row.attempts)
        .where(flagged("leased", true, this.#db))
        .where("status", "=", "pending")
        .where("sent_at", "is", null)
        .executeTakeFirst();
      return marked.numUpdatedRows === 1n;
    });
  }

  /** Events about the row that no worker has handled, oldest first. */
  async events(row: Row): Promise<Event[]> {
    const found = await this.#query
      .selectFrom("webhook_events")
      .select(["id", "replicate_id", "row_id", "body", "received_at"])
      .where((e) =>
        e.or([e("row_id", "=", row.id), e("replicate_id", "=", row.replicate_id ?? "")]),
      )
      .where("handled_at", "is", null)
      .orderBy("received_at")
      .execute();
    return found.map((event) => decoded(event, this.#db));
  }

  /**
   * Write what changed and give the lease back; false where another worker has the row.
   *
   * A row with events that came meanwhile is due at once, and so is one that was deleted, or asked
   * to be canceled. What the handled events said is not kept, only their ids.
   */
  async save(old: Row, next: Row, handled: readonly Event[] = []): Promise<boolean> {
    const at = now();
    // sent_at has been written by markSent meanwhile, and is taken back if nothing was sent.
    const always = { due_at: next.due_at, leased: false, sent_at: next.sent_at };
    return await this.#query.transaction().execute(async (db) => {
      if (!(await this.#fenced(db, old, { ...changes(old, next), ...always }))) return false;
      if (handled.length > 0) {
        const ids = handled.map((event) => event.id);
        await db
          .updateTable("webhook_events")
          .set(encoded({ handled_at: at, body: {} }, this.#db))
          .where("id", "in", ids)
          .execute();
      }
      const meanwhile = db.updateTable("predictions").set({ due_at: at }).where("id", "=", old.id);
      await meanwhile.where((e) => e.exists(unhandled(e, next))).execute();
      if (old.deleted_at === null) await meanwhile.where("deleted_at", "is not", null).execute();
      if (!old.cancel_requested) {
        await meanwhile
          .set({ ask_at: null })
          .where(flagged("cancel_requested", true, this.#db))
          .where("status", "not in", OVER)
          .execute();
      }
      return true;
    });
  }

  /** Write what changed and keep the lease; false where another worker has the row. */
  async note(old: Row, next: Row): Promise<boolean> {
    return await this.#query
      .transaction()
      .execute((db) => this.#fenced(db, old, changes(old, next)));
  }

  async #fenced(db: Query, row: Row, values: Partial<Row>): Promise<boolean> {
    const written = await db
      .updateTable("predictions")
      .set(encoded({ attempts: row.attempts, ...values }, this.#db)) // never nothing
      .where("id", "=", row.id)
      .where("attempts", "=", row.attempts)
      .where(flagged("leased", true, this.#db))
      .executeTakeFirst();
    return written.numUpdatedRows === 1n;
  }
}

/** Events about the row that nobody has handled. */
function unhandled(e: ExpressionBuilder<Tables, "predictions">, row: Row) {
  return e
    .selectFrom("webhook_events")
    .select("webhook_events.id")
    .where("handled_at", "is", null)
    .where((event) =>
      event.or([
        event("webhook_events.row_id", "=", row.id),
        event("webhook_events.replicate_id", "=", row.replicate_id ?? ""),
      ]),
    );
}

function changes(old: Row, next: Row): Partial<Row> {
  const pairs = Object.entries(next).filter(([name, value]) => {
    const before = old[name as keyof Row];
    return before !== value && JSON.stringify(before) !== JSON.stringify(value);
  });
  return Object.fromEntries(pairs);
}

/** What callers and webhooks ask of the database. Every method is one transaction. */
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
import { checkLimits, lockLimits } from "./limits.ts";
import { OVER, type Row } from "./prediction.ts";
import type { Limits } from "./settings.ts";

/** The caller used this idempotency key for another request. */
export class KeyReused extends Error {}

/** Somebody started a prediction of this model already. */
export class RunLately extends Error {}

export class Store {
  readonly #db: Database;
  readonly #query: Kysely<Tables>;

  constructor(db: Database) {
    this.#db = db;
    this.#query = db.query;
  }

  async close(): Promise<void> {
    await this.#query.destroy();
  }

  /**
   * Insert the row, or return the one that its owner made with the same key.
   *
   * @throws KeyReused the same key came with another model or input, or its row was deleted.
   * @throws RunLately a prediction of the model was created since `unlessSince`.
   * @throws LimitReached a limit counted over the stored rows is reached.
   */
  async add(row: Row, limits: Limits, unlessSince?: number): Promise<Row> {
    return await this.#query.transaction().execute(async (db) => {
      await lockLimits(db, this.#db);
      if (row.idempotency_key !== null) {
        const known = await db
          .selectFrom("predictions")
          .selectAll()
          .where("owner", "=", row.owner)
          .where("idempotency_key", "=", row.idempotency_key)
          .executeTakeFirst();
        if (known) return this.#sameRequest(decoded(known, this.#db), row);
      }
      if (unlessSince !== undefined) {
        const lately = await db
          .selectFrom("predictions")
          .select("id")
          .where("model", "=", row.model)
          .where("created_at", ">=", unlessSince)
          .executeTakeFirst();
        if (lately) throw new RunLately();
      }
      await checkLimits(db, "predictions", row, limits);
      await db.insertInto("predictions").values(encoded(row, this.#db)).execute();
      return row;
    });
  }

  #sameRequest(known: Row, row: Row): Row {
    const same = known.model === row.model && canonical(known.input) === canonical(row.input);
    if (known.deleted_at !== null || !same) throw new KeyReused();
    return known;
  }

  /** The row, unless it is not there or was deleted. */
  async get(id: string): Promise<Row | null> {
    return (await this.many([id]))[0] ?? null;
  }

  /** Those of the rows that are there. */
  async many(ids: readonly string[]): Promise<Row[]> {
    const found = await this.#query
      .selectFrom("predictions")
      .selectAll()
      .where("id", "in", ids)
      .where("deleted_at", "is", null)
      .execute();
    return found.map((row) => decoded(row, this.#db));
  }

  /** The owner's rows, newest first, those created before the given time and id. */
  async page(
    owner: string,
    before: { createdAt: number; id: string } | null,
    limit: number,
  ): Promise<Row[]> {
    let query = this.#query
      .selectFrom("predictions")
      .selectAll()
      .where("owner", "=", owner)
      .where("deleted_at", "is", null);
    if (before) {
      query = query.where((e) =>
        e.or([
          e("created_at", "<", before.createdAt),
          e.and([e("created_at", "=", before.createdAt), e("id", "<", before.id)]),
        ]),
      );
    }
    const ordered = query.orderBy("created_at", "desc").orderBy("id", "desc").limit(limit);
    return (await ordered.execute()).map((row) => decoded(row, this.#db));
  }

  /**
   * Cancel at once what was never sent, else ask the worker to; null where it is over.
   *
   * A worker that holds what is canceled at once is fenced out, as by another worker's claim.
   */
  async requestCancel(id: string, at: number): Promise<Row | null> {
    return await this.#query.transaction().execute(async (db) => {
      return await this.#cancel(db, id, at);
    });
  }

  /** `requestCancel`, and hide the row; a worker erases input, output and files. */
  async delete(id: string, at: number): Promise<Row | null> {
    return await this.#query.transaction().execute(async (db) => {
      const row = await this.#cancel(db, id, at);
      const gone = db.updateTable("predictions").set({ deleted_at: at }).set(this.#due(at));
      await gone.where("id", "=", id).execute();
      return row;
    });
  }

  async #cancel(db: Query, id: string, at: number): Promise<Row | null> {
    const live = db.updateTable("predictions").where("id", "=", id).where("status", "not in", OVER);
    const requested = encoded({ cancel_requested: true }, this.#db);
    const atOnce = await live
      .where("sent_at", "is", null)
      .where("status", "=", "pending")
      .set({ ...requested, status: "canceled", completed_at: at, due_at: null })
      // A worker that was about to send it is fenced out.
      .set(encoded({ leased: false }, this.#db))
      .set((e) => ({ attempts: e("attempts", "+", 1) }))
      .returningAll()
      .executeTakeFirst();
    const asked = live.set({ ...requested, ask_at: null }).set(this.#due(at));
    const row = atOnce ?? (await asked.returningAll().executeTakeFirst());
    return row ? decoded(row, this.#db) : null;
  }

  /** Keep the event and make its row due; false where the event is known already. */
  async receive(event: Event, at: number): Promise<boolean> {
    return await this.#query.transaction().execute(async (db) => {
      const kept = await db
        .insertInto("webhook_events")
        .values({ ...encoded(event, this.#db), handled_at: null })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if (kept.numInsertedOrUpdatedRows === 0n) return false;
      await db
        .updateTable("predictions")
        .set(this.#due(at))
        .where((e) =>
          e.or([e("id", "=", event.row_id ?? ""), e("replicate_id", "=", event.replicate_id)]),
        )
        .execute();
      return true;
    });
  }

  /** A leased row is locked, too: whoever gives it back meanwhile must see what happened. */
  #due(at: number) {
    const leased = flagged("leased", true, this.#db);
    return (e: ExpressionBuilder<Tables, "predictions">) => ({
      due_at: e.case().when(leased(e)).then(e.ref("due_at")).else(at).end(),
    });
  }

  /** Pairs of model key and version that ran since then. */
  async versionsRan(since: number): Promise<{ model: string; version: string }[]> {
    return await this.#query
      .selectFrom("predictions")
      .select(["model", "version_ran as version"])
      .distinct()
      .where("created_at", ">=", since)
      .where("version_ran", "is not", null)
      .$narrowType<{ version: string }>()
      .execute();
  }

  /** For how many seconds the longest due row has waited. */
  async overdue(at: number): Promise<number> {
    const { oldest } = await this.#query
      .selectFrom("predictions")
      .select((e) => e.fn.min("due_at").as("oldest"))
      .executeTakeFirstOrThrow();
    return oldest === null ? 0 : Math.max(0, at - oldest);
  }

  /** Every row created since then, deleted ones too, oldest first. */
  async usage(since: number): Promise<Row[]> {
    const found = await this.#query
      .selectFrom("predictions")
      .selectAll()
      .where("created_at", ">=", since)
      .orderBy("created_at")
      .execute();
    return found.map((row) => decoded(row, this.#db));
  }
}

/** JSON with its names in order: PostgreSQL and JavaScript keep them in orders of their own. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

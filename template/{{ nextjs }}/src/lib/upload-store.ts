/** What uploads and their tidying ask of the database. */
import type { Kysely } from "kysely";
import {
  type Database,
  decoded,
  encoded,
  type Query,
  type Tables,
  type UploadedFile,
} from "./database.ts";
import { checkLimits, lockLimits } from "./limits.ts";
import type { StoredFile } from "./prediction.ts";
import type { Limits } from "./settings.ts";

export class UploadStore {
  readonly #db: Database;
  readonly #query: Kysely<Tables>;

  constructor(db: Database) {
    this.#db = db;
    this.#query = db.query;
  }

  /**
   * Insert the upload, before its file is stored.
   *
   * @throws LimitReached a limit counted over the uploads is reached; seconds are not counted.
   */
  async add(upload: UploadedFile, limits: Limits): Promise<void> {
    await this.#query.transaction().execute(async (db) => {
      await lockLimits(db, this.#db);
      await checkLimits(db, "uploads", upload, limits);
      await db.insertInto("uploads").values(encoded(upload, this.#db)).execute();
    });
  }

  /** Write the file of an upload that is stored now. */
  async keep(id: string, file: StoredFile): Promise<void> {
    const values = encoded({ file }, this.#db);
    await this.#write((db) => db.updateTable("uploads").set(values).where("id", "=", id));
  }

  /** At most 100 uploads created before then, oldest first. */
  async old(before: number): Promise<{ id: string }[]> {
    return await this.#query
      .selectFrom("uploads")
      .select("id")
      .where("created_at", "<", before)
      .orderBy("created_at")
      .limit(100)
      .execute();
  }

  /** Delete the upload; no effect where it is gone. */
  async forget(id: string): Promise<void> {
    await this.#write((db) => db.deleteFrom("uploads").where("id", "=", id));
  }

  /** Delete the events received before then that are handled, or whose row is not there. */
  async forgetEvents(before: number): Promise<void> {
    await this.#write((db) =>
      db
        .deleteFrom("webhook_events")
        .where("received_at", "<", before)
        .where((e) =>
          e.or([
            e("handled_at", "is not", null),
            e.not(
              e.exists(
                e
                  .selectFrom("predictions")
                  .select("predictions.id")
                  .where((p) =>
                    p.or([
                      p("predictions.id", "=", p.ref("webhook_events.row_id")),
                      p("predictions.replicate_id", "=", p.ref("webhook_events.replicate_id")),
                    ]),
                  ),
              ),
            ),
          ]),
        ),
    );
  }

  /** One statement, in its turn. */
  async #write(statement: (db: Query) => { execute(): Promise<unknown> }): Promise<void> {
    await this.#query.transaction().execute((db) => statement(db).execute());
  }

  async get(id: string): Promise<UploadedFile | null> {
    const found = await this.#query
      .selectFrom("uploads")
      .selectAll()
      .where("id", "=", id)
      .executeTakeFirst();
    return found ? decoded(found, this.#db) : null;
  }
}

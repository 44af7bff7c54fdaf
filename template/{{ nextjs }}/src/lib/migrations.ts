/** The tables, by one set of migrations for both databases. Add to the end, never change one. */
import { type Kysely, sql } from "kysely";
import { type Migration, Migrator } from "kysely/migration";
import { openDatabase } from "./database.ts";

const migrations: Record<string, Migration> = {
  "0001_predictions": { up: predictions },
};

/**
 * Bring the database to the present schema; several processes may try at once.
 *
 * @throws Error a migration failed; what it began was taken back.
 */
export async function migrate(url: string): Promise<void> {
  const { query } = openDatabase(url);
  const provider = { getMigrations: async () => migrations };
  try {
    const { error } = await new Migrator({ db: query, provider }).migrateToLatest();
    if (error) throw error;
  } finally {
    await query.destroy();
  }
}

async function predictions(db: Kysely<unknown>): Promise<void> {
  const double = sql`double precision`;
  await db.schema
    .createTable("predictions")
    .addColumn("id", "varchar(32)", (column) => column.primaryKey())
    .addColumn("owner", "varchar(255)", (column) => column.notNull())
    .addColumn("address", "varchar(64)", (column) => column.notNull())
    .addColumn("model", "varchar(255)", (column) => column.notNull())
    .addColumn("ref", "varchar(512)", (column) => column.notNull())
    .addColumn("input", "json", (column) => column.notNull())
    .addColumn("created_at", double, (column) => column.notNull())
    .addColumn("mode", "varchar(16)", (column) => column.notNull())
    .addColumn("deployment", "varchar(255)")
    .addColumn("idempotency_key", "varchar(255)")
    .addColumn("status", "varchar(16)", (column) => column.notNull())
    .addColumn("storage", "varchar(16)", (column) => column.notNull())
    .addColumn("replicate_id", "varchar(64)")
    .addColumn("version_ran", "varchar(64)")
    .addColumn("stream_url", "text")
    .addColumn("remote_output", "json")
    .addColumn("output", "json")
    .addColumn("files", "json", (column) => column.notNull())
    .addColumn("error", "text")
    .addColumn("predict_seconds", double)
    .addColumn("completed_at", double)
    .addColumn("sent_at", double)
    .addColumn("ask_at", double)
    .addColumn("cancel_requested", "boolean", (column) => column.notNull())
    .addColumn("deleted_at", double)
    .addColumn("erased", "boolean", (column) => column.notNull())
    .addColumn("due_at", double)
    .addColumn("leased", "boolean", (column) => column.notNull())
    .addColumn("attempts", "integer", (column) => column.notNull())
    .addColumn("failures", "integer", (column) => column.notNull())
    .addUniqueConstraint("predictions_key", ["owner", "idempotency_key"])
    .execute();
  await index(db, "predictions_due", "predictions", ["due_at"]);
  await index(db, "predictions_owner", "predictions", ["owner", "created_at"]);
  await index(db, "predictions_created", "predictions", ["created_at"]);
  await db.schema
    .createIndex("predictions_replicate")
    .on("predictions")
    .column("replicate_id")
    .unique()
    .execute();
  await db.schema
    .createTable("webhook_events")
    .addColumn("id", "varchar(255)", (column) => column.primaryKey())
    .addColumn("replicate_id", "varchar(64)", (column) => column.notNull())
    .addColumn("row_id", "varchar(64)")
    .addColumn("body", "json", (column) => column.notNull())
    .addColumn("received_at", double, (column) => column.notNull())
    .addColumn("handled_at", double)
    .execute();
  await index(db, "webhook_events_row", "webhook_events", ["row_id"]);
  await index(db, "webhook_events_replicate", "webhook_events", ["replicate_id"]);
  await db.schema
    .createTable("uploads")
    .addColumn("id", "varchar(32)", (column) => column.primaryKey())
    .addColumn("owner", "varchar(255)", (column) => column.notNull())
    .addColumn("address", "varchar(64)", (column) => column.notNull())
    .addColumn("created_at", double, (column) => column.notNull())
    .addColumn("file", "json")
    .execute();
  await index(db, "uploads_created", "uploads", ["created_at"]);
}

async function index(db: Kysely<unknown>, name: string, table: string, columns: string[]) {
  await db.schema.createIndex(name).on(table).columns(columns).execute();
}

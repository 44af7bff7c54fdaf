/** The database: SQLite for one machine, PostgreSQL for many; the same tables and statements. */
import { mkdirSync } from "node:fs";
import { Socket } from "node:net";
import { dirname, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import {
  type ExpressionBuilder,
  Kysely,
  PostgresDialect,
  SqliteDialect,
  SqliteDriver,
  type Transaction,
} from "kysely";
import { Pool } from "pg";
import type { Row, StoredFile } from "./prediction.ts";
import { SettingsError } from "./settings.ts";

/** A verified webhook, kept before anything is done about it; `id` is its webhook-id. */
export interface Event {
  id: string;
  replicate_id: string;
  row_id: string | null;
  body: unknown;
  received_at: number;
}

/** A file that a caller sent, to be used as an input; `file` is null until it is stored. */
export interface UploadedFile {
  id: string;
  owner: string;
  address: string;
  created_at: number;
  file: StoredFile | null;
}

/** Columns as they are decoded: what goes in is `encoded`. */
export interface Tables {
  predictions: Row;
  webhook_events: Event & { handled_at: number | null };
  uploads: UploadedFile;
}

/** The database itself, or a transaction on it. */
export type Query = Kysely<Tables> | Transaction<Tables>;

export interface Database {
  query: Kysely<Tables>;
  isPostgres: boolean;
}

/** Milliseconds until a connection that says nothing counts as gone, or a lock as never free. */
const SILENCE = 30_000;

const JSON_COLUMNS = new Set(["input", "remote_output", "output", "files", "body", "file"]);
const BOOLEAN_COLUMNS = new Set(["cancel_requested", "erased", "leased"]);

/**
 * Open `sqlite:///path` (made if it is not there) or `postgresql://…`.
 *
 * @throws SettingsError it is neither, or the file cannot be opened.
 */
export function openDatabase(url: string): Database {
  if (/^postgres(ql)?(\+\w+)?:/.test(url)) {
    const dialect = new PostgresDialect({ pool: pool(url) });
    return { query: new Kysely({ dialect }), isPostgres: true };
  }
  const [, name] = /^(?:sqlite|file):(?:\/\/\/?)?(.+)$/.exec(url) ?? [];
  if (!name) throw new SettingsError("DATABASE_URL: neither sqlite:///path nor postgresql://…");
  const path = resolve(name);
  const database = openFile(path);
  database.pragma("journal_mode = WAL");
  // NORMAL survives a killed process; a power cut may lose the last commits (FULL would not).
  database.pragma("synchronous = NORMAL");
  const dialect = new SqliteDialect({ database });
  dialect.createDriver = () => new ImmediateDriver(database);
  return { query: new Kysely({ dialect }), isPostgres: false };
}

function openFile(path: string): Sqlite.Database {
  try {
    mkdirSync(dirname(path), { recursive: true });
    return new Sqlite(path, { timeout: SILENCE });
  } catch (error) {
    throw new SettingsError(`DATABASE_URL: ${error instanceof Error ? error.message : error}`);
  }
}

function pool(url: string): Pool {
  const made = new Pool({
    connectionString: url.replace(/^postgres(ql)?(\+\w+)?:/, "postgres:"),
    connectionTimeoutMillis: 10_000,
    // Without it a worker that was cut off waits for a quarter of an hour.
    stream: () =>
      new Socket().setTimeout(SILENCE, function (this: Socket) {
        this.destroy();
      }),
    onConnect: async (client) => {
      // A connection that breaks is replaced; without listeners it would end the process.
      client.on("error", () => undefined);
      // A host that stands still in the middle of a transaction would keep its rows locked.
      await client.query("set idle_in_transaction_session_timeout = '30s'");
    },
  });
  made.on("error", () => undefined);
  return made;
}

/** Transactions lock at once, so that writers queue up instead of failing. */
class ImmediateDriver extends SqliteDriver {
  readonly #database: Sqlite.Database;

  constructor(database: Sqlite.Database) {
    super({ database });
    this.#database = database;
  }

  /** Waits for its turn here, not in SQLite, where the whole process would wait with it. */
  override async beginTransaction(): Promise<void> {
    const end = performance.now() + SILENCE;
    while (!this.#begun(performance.now() > end)) await sleep(2 + 8 * Math.random());
  }

  #begun(last: boolean): boolean {
    this.#database.pragma("busy_timeout = 0");
    try {
      this.#database.exec("begin immediate");
      return true;
    } catch (error) {
      const busy = error instanceof Sqlite.SqliteError && error.code.startsWith("SQLITE_BUSY");
      if (last || !busy) throw error;
      return false;
    } finally {
      this.#database.pragma(`busy_timeout = ${SILENCE}`);
    }
  }
}

/** Values as both drivers take them. */
export function encoded<T extends object>(values: T, { isPostgres }: Database): T {
  const pairs = Object.entries(values).map(([name, value]) => {
    if (JSON_COLUMNS.has(name)) return [name, value === null ? null : JSON.stringify(value)];
    if (BOOLEAN_COLUMNS.has(name) && !isPostgres) return [name, Number(value)];
    return [name, value];
  });
  return Object.fromEntries(pairs) as T;
}

/** What a driver gave, with JSON and booleans as such. */
export function decoded<T extends object>(values: T, { isPostgres }: Database): T {
  if (isPostgres) return values;
  const pairs = Object.entries(values).map(([name, value]) => {
    if (JSON_COLUMNS.has(name) && value !== null) return [name, JSON.parse(String(value))];
    return [name, BOOLEAN_COLUMNS.has(name) ? Boolean(value) : value];
  });
  return Object.fromEntries(pairs) as T;
}

/** The condition that a flag of a prediction has this value; SQLite knows numbers only. */
export function flagged(name: "leased" | "cancel_requested", value: boolean, db: Database) {
  return (e: ExpressionBuilder<Tables, "predictions">) =>
    e(name, "=", (db.isPostgres ? value : Number(value)) as boolean);
}

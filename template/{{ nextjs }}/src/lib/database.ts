/** The database: SQLite for one machine, PostgreSQL for many; the same tables and statements. */
import { mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import Sqlite from "better-sqlite3";
import {
  CompiledQuery,
  type DatabaseConnection,
  type Driver,
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

/**
 * Milliseconds until a server that does not answer any more counts as gone; without them a worker
 * that was cut off waits for a quarter of an hour.
 */
const CUT_OFF = { connectionTimeoutMillis: 10_000, query_timeout: 30_000, keepAlive: true };

const JSON_COLUMNS = new Set(["input", "remote_output", "output", "files", "body", "file"]);
const BOOLEAN_COLUMNS = new Set(["cancel_requested", "erased", "leased"]);

/**
 * Open `sqlite:///path` (made if it is not there) or `postgresql://…`.
 *
 * @throws SettingsError it is neither.
 */
export function openDatabase(url: string): Database {
  if (/^postgres(ql)?(\+\w+)?:/.test(url)) {
    const connectionString = url.replace(/^postgres(ql)?(\+\w+)?:/, "postgres:");
    const pool = new Pool({ connectionString, ...CUT_OFF });
    // A connection that breaks while idle is replaced; without a listener it would end the process.
    pool.on("error", () => undefined);
    return { query: new Kysely({ dialect: new PostgresDialect({ pool }) }), isPostgres: true };
  }
  const [, name] = /^(?:sqlite|file):(?:\/\/\/?)?(.+)$/.exec(url) ?? [];
  if (!name) throw new SettingsError("DATABASE_URL: neither sqlite:///path nor postgresql://…");
  const path = resolve(name);
  mkdirSync(dirname(path), { recursive: true });
  const database = new Sqlite(path, { timeout: 30_000 });
  database.pragma("journal_mode = WAL");
  // NORMAL survives a killed process; a power cut may lose the last commits (FULL would not).
  database.pragma("synchronous = NORMAL");
  return { query: new Kysely({ dialect: new ImmediateDialect({ database }) }), isPostgres: false };
}

/** SQLite whose transactions lock at once, so that writers queue up instead of failing. */
class ImmediateDialect extends SqliteDialect {
  readonly #config: ConstructorParameters<typeof SqliteDialect>[0];

  constructor(config: ConstructorParameters<typeof SqliteDialect>[0]) {
    super(config);
    this.#config = config;
  }

  override createDriver(): Driver {
    return new ImmediateDriver(this.#config);
  }
}

class ImmediateDriver extends SqliteDriver {
  override async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw("begin immediate"));
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

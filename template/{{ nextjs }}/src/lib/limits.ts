/** What keeps a bill small: counted over the rows, in the transaction that adds one. */
import { sql } from "kysely";
import type { Database, Query } from "./database.ts";
import type { Limits } from "./settings.ts";

const DAY = 86_400;
const LOCK = 7_264_911;

/** No prediction, or no upload, may be started now; `retryAfter` in seconds. */
export class LimitReached extends Error {
  readonly retryAfter: number;

  constructor(title: string, retryAfter: number) {
    super(title);
    this.retryAfter = retryAfter;
  }
}

/** Whose a new row is, and when it was made. */
interface New {
  owner: string;
  address: string;
  created_at: number;
}

/** Let nobody else count and insert meanwhile; on SQLite every writer is alone anyway. */
export async function lockLimits(db: Query, { isPostgres }: Database): Promise<void> {
  if (isPostgres) await sql`select pg_advisory_xact_lock(${LOCK})`.execute(db);
}

/**
 * Count what there is of the kind already.
 *
 * @throws LimitReached the new one would be too many.
 */
export async function checkLimits(
  db: Query,
  table: "predictions" | "uploads",
  made: New,
  limits: Limits,
): Promise<void> {
  const at = made.created_at;
  const rates = [
    ["Too many requests", "owner", limits.callerPerMinute],
    ["Too many requests from this address", "address", limits.addressPerMinute],
  ] as const;
  for (const [title, column, most] of rates) {
    const { count, first } = await db
      .selectFrom(table)
      .select((e) => [e.fn.countAll().as("count"), e.fn.min("created_at").as("first")])
      .where(column, "=", made[column])
      .where("created_at", ">", at - 60)
      .executeTakeFirstOrThrow();
    if (Number(count) >= most) throw new LimitReached(title, (first ?? at) + 60 - at);
  }
  const midnight = Math.floor(at / DAY) * DAY;
  const { count } = await db
    .selectFrom(table)
    .select((e) => e.fn.countAll().as("count"))
    .where("created_at", ">=", midnight)
    .executeTakeFirstOrThrow();
  const spent = table === "uploads" ? 0 : await secondsSince(db, midnight);
  if (Number(count) >= limits.dailyPredictions || spent >= limits.dailySeconds) {
    throw new LimitReached("The daily ceiling is reached", midnight + DAY - at);
  }
}

async function secondsSince(db: Query, midnight: number): Promise<number> {
  const { seconds } = await db
    .selectFrom("predictions")
    .select((e) => e.fn.sum("predict_seconds").as("seconds"))
    .where("created_at", ">=", midnight)
    .executeTakeFirstOrThrow();
  return Number(seconds);
}

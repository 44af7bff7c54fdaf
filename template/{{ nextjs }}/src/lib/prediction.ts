/** What a prediction is: the row that is kept of it, and the three things a caller can be shown. */

export type Status =
  | "pending"
  | "starting"
  | "processing"
  | "succeeded"
  | "failed"
  | "canceled"
  | "aborted";
export type StorageState = "none" | "pending" | "stored" | "expired" | "failed";

const TERMINAL_STATUSES = ["succeeded", "failed", "canceled", "aborted"] as const;
export const TERMINAL: ReadonlySet<string> = new Set(TERMINAL_STATUSES);
/** For queries, which take arrays only. */
export const OVER: readonly Status[] = TERMINAL_STATUSES;

declare const stored: unique symbol;

/** A root-relative URL of ours, `/files/<id>/<index>`; never one of Replicate's, which expire. */
export type StoredUrl = string & { readonly [stored]: true };

export function storedUrl(id: string, index: number): StoredUrl {
  return `/files/${id}/${index}` as StoredUrl;
}

/** An object in our own storage; `size` in bytes, `sha256` in hex. */
export interface StoredFile {
  key: string;
  content_type: string;
  size: number;
  sha256: string;
}

/**
 * One prediction as the database keeps it: the truth about it and its place in the queue.
 *
 * Times are seconds since the epoch. `due_at` says when a worker must look (null: at rest);
 * `attempts` counts the claims and fences every write of a worker.
 */
export interface Row {
  id: string;
  owner: string;
  address: string;
  model: string;
  ref: string;
  input: Record<string, unknown>;
  created_at: number;
  mode: string;
  deployment: string | null;
  idempotency_key: string | null;
  status: Status;
  storage: StorageState;
  replicate_id: string | null;
  version_ran: string | null;
  stream_url: string | null;
  remote_output: unknown;
  output: unknown;
  files: StoredFile[];
  error: string | null;
  predict_seconds: number | null;
  completed_at: number | null;
  sent_at: number | null;
  ask_at: number | null;
  cancel_requested: boolean;
  deleted_at: number | null;
  erased: boolean;
  due_at: number | null;
  leased: boolean;
  attempts: number;
  failures: number;
}

export type NewRow = Pick<Row, "id" | "owner" | "address" | "model" | "ref" | "input" | "mode"> &
  Pick<Row, "created_at" | "deployment" | "idempotency_key">;

/** A row that nobody has looked at yet: due at once. */
export function newRow(given: NewRow): Row {
  return {
    ...given,
    status: "pending",
    storage: "none",
    replicate_id: null,
    version_ran: null,
    stream_url: null,
    remote_output: null,
    output: null,
    files: [],
    error: null,
    predict_seconds: null,
    completed_at: null,
    sent_at: null,
    ask_at: null,
    cancel_requested: false,
    deleted_at: null,
    erased: false,
    due_at: given.created_at,
    leased: false,
    attempts: 0,
    failures: 0,
  };
}

export function isOver(row: Row): boolean {
  return TERMINAL.has(row.status);
}

/** Over, and its output stored, lost or never there: nothing about it changes any more. */
export function isSettled(row: Row): boolean {
  return isOver(row) && row.storage !== "pending";
}

/** Whether a caller who waits has something new to see. */
export function hasChanged(before: Row, after: Row): boolean {
  return before.status !== after.status || before.storage !== after.storage;
}

/** Replicate has not finished it, or its output is still on the way into our storage. */
export interface Running {
  phase: "running";
  row: Row;
}

/** Over without an output that can be shown: failed, canceled, aborted, expired, or empty. */
export interface Ended {
  phase: "ended";
  row: Row;
}

/** Succeeded and stored: the only one that has an output; its URLs are `StoredUrl`. */
export interface Succeeded {
  phase: "succeeded";
  row: Row;
  output: unknown;
}

export type Prediction = Running | Ended | Succeeded;

/** The row as its caller may see it. */
export function present(row: Row): Prediction {
  if (row.status === "succeeded" && row.storage === "stored") {
    return { phase: "succeeded", row, output: row.output };
  }
  return { phase: isSettled(row) ? "ended" : "running", row };
}

/** A prediction in the JSON of the HTTP contract; times in RFC 3339, UTC. */
export function asJson(prediction: Prediction) {
  const { row } = prediction;
  return {
    id: row.id,
    replicate_id: row.replicate_id,
    model: row.model,
    ref: row.ref,
    version_ran: row.version_ran,
    status: row.status,
    storage: row.storage,
    output: prediction.phase === "succeeded" ? prediction.output : null,
    error: row.error,
    metrics: { predict_seconds: row.predict_seconds },
    created_at: rfc3339(row.created_at),
    completed_at: row.completed_at === null ? null : rfc3339(row.completed_at),
  };
}

/** What `asJson` gives, for whoever reads our own API. */
export type PredictionJson = ReturnType<typeof asJson>;

export function rfc3339(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}

/** Seconds since the epoch. */
export function now(): number {
  return Date.now() / 1000;
}

/**
 * The JSON value as every database and JSON reader takes it.
 *
 * JavaScript reads more than that: numbers that are none (here null), halves of surrogate pairs
 * (here U+FFFD), and NUL, which PostgreSQL has no place for.
 */
export function storable(value: unknown): unknown {
  if (typeof value === "string") return value.toWellFormed().replaceAll("\0", "");
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (Array.isArray(value)) return value.map(storable);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([name, part]) => [storable(name), storable(part)]),
    );
  }
  return value;
}

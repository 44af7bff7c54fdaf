/**
 * The state machine of a prediction: pure, so that every order of events can be tested.
 *
 * Three inputs move a row: what Replicate says (`observe`), what its caller asks (a flag on the
 * row), and the clock (`nextStep`). Observing is monotone: a status never goes back and a terminal
 * one never changes, so late, repeated and out-of-order messages end in the same state.
 */
import { isOver, type Row, type Status, storable, TERMINAL } from "./prediction.ts";

const RANK: Record<Status, number> = {
  pending: 0,
  starting: 1,
  processing: 2,
  succeeded: 3,
  failed: 3,
  canceled: 3,
  aborted: 3,
};

/** Seconds after `Cancel-After` in which a lost create may still be found. */
export const ADOPTION_MARGIN = 60;

export const EXPIRED =
  "Replicate had removed the output (it keeps one for about an hour) before it was stored.";
export const UNKNOWN =
  "The outcome is unknown: the answer to the request was lost and Replicate did not name the" +
  " prediction again. It may have been billed; look for it on replicate.com.";

/** What Replicate says about a prediction, in a reply or in a webhook's body. */
export interface Remote {
  id: string;
  status: Exclude<Status, "pending">;
  output: unknown;
  error: string | null;
  version: string | null;
  predictSeconds: number | null;
  completedAt: number | null;
  streamUrl: string | null;
  rowId: string | null;
  dataRemoved: boolean;
}

/**
 * Read Replicate's prediction object.
 *
 * @throws TypeError it is not one; the message names the field.
 */
export function parseRemote(given: unknown): Remote {
  const data = record(withoutDepth(given));
  const { id, status } = data;
  if (typeof id !== "string" || !/^[\w-]{1,64}$/.test(id)) {
    throw new TypeError("the prediction has no id");
  }
  if (!isRemoteStatus(status)) {
    throw new TypeError(`the prediction has an unknown status ${JSON.stringify(status)}`);
  }
  return {
    id,
    status,
    output: data.output ?? null,
    error: typeof data.error === "string" ? data.error : toText(data.error),
    version: typeof data.version === "string" && data.version.length <= 64 ? data.version : null,
    predictSeconds: numberOr(record(data.metrics).predict_time, null),
    completedAt: seconds(data.completed_at),
    streamUrl: stringOr(record(data.urls).stream, null),
    rowId: rowIdOf(data.webhook),
    dataRemoved: data.data_removed === true,
  };
}

function withoutDepth(given: unknown): unknown {
  try {
    return storable(given);
  } catch (error) {
    if (error instanceof RangeError) throw new TypeError("the prediction is nested too deeply");
    throw error;
  }
}

function isRemoteStatus(status: unknown): status is Remote["status"] {
  return typeof status === "string" && Object.hasOwn(RANK, status) && status !== "pending";
}

/** The row's id inside a webhook URL of ours. */
export function rowIdOf(webhook: unknown): string | null {
  if (typeof webhook !== "string") return null;
  return /[?&]prediction=([0-9a-f]{32})(?:&|$)/.exec(webhook)?.[1] ?? null;
}

function record(value: unknown): Record<string, unknown> {
  const is = typeof value === "object" && value !== null && !Array.isArray(value);
  return is ? (value as Record<string, unknown>) : {};
}

function toText(value: unknown): string | null {
  return value === null || value === undefined ? null : JSON.stringify(value);
}

function numberOr<T>(value: unknown, other: T): number | T {
  return typeof value === "number" ? value : other;
}

function stringOr<T>(value: unknown, other: T): string | T {
  return typeof value === "string" ? value : other;
}

function seconds(value: unknown): number | null {
  const milliseconds = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return milliseconds > 0 ? milliseconds / 1000 : null;
}

/** The row after Replicate said this about it. */
export function observe(row: Row, remote: Remote, now: number): Row {
  if (row.replicate_id !== null && row.replicate_id !== remote.id) return row;
  const found = row.replicate_id === null;
  const seen: Row = {
    ...row,
    // Found at last: what was waited for is over, and a cancel that was asked for goes out now.
    failures: found ? 0 : row.failures,
    ask_at: found && row.cancel_requested ? null : row.ask_at,
    replicate_id: remote.id,
    version_ran: row.version_ran ?? remote.version,
    predict_seconds: row.predict_seconds ?? remote.predictSeconds,
    stream_url: row.stream_url ?? remote.streamUrl,
  };
  if (isOver(seen) || RANK[remote.status] < RANK[seen.status]) return seen;
  if (!TERMINAL.has(remote.status)) return { ...seen, status: remote.status };
  const over: Row = {
    ...seen,
    status: remote.status,
    error: remote.error,
    completed_at: remote.completedAt ?? now,
  };
  if (remote.status !== "succeeded") return over;
  if (remote.output !== null) return { ...over, storage: "pending", remote_output: remote.output };
  return remote.dataRemoved ? { ...over, storage: "expired", error: EXPIRED } : over;
}

/** The row failed on our side; no effect on one that is over. */
export function fail(row: Row, error: string, now: number): Row {
  return isOver(row) ? row : { ...row, status: "failed", error, completed_at: now };
}

/** The row canceled without a word to Replicate, which has never heard of it. */
export function cancelUnsent(row: Row, now: number): Row {
  return { ...row, status: "canceled", completed_at: now };
}

/** What a worker does next about a row. */
export type Step = "create" | "adopt" | "cancel" | "ask" | "store" | "erase" | "rest";

/** The one thing to do about the row; `rest` where nothing is left or it is too early. */
export function nextStep(row: Row, now: number): Step {
  if (isOver(row)) {
    if (row.deleted_at !== null && !row.erased) return "erase";
    return row.storage === "pending" ? "store" : "rest";
  }
  if (row.ask_at !== null && now < row.ask_at) return "rest";
  if (row.replicate_id === null && row.sent_at !== null) return "adopt";
  if (row.replicate_id === null && !row.cancel_requested) return "create";
  return row.cancel_requested ? "cancel" : "ask";
}

/** When a row whose create was never answered is given up, in seconds since the epoch. */
export function unknownSince(row: Row, cancelAfter: number): number {
  return (row.sent_at ?? row.created_at) + cancelAfter + ADOPTION_MARGIN;
}

/** What was signed, unless it is nothing about a prediction: no JSON, or another object. */
export function aboutPrediction(body: Uint8Array) {
  try {
    const data = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body)) as unknown;
    const remote = parseRemote(data);
    return { replicate_id: remote.id, row_id: remote.rowId, body: storable(data) };
  } catch {
    return null;
  }
}

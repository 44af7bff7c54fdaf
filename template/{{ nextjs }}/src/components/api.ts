/** The HTTP API as the page calls it, and what it shows of a prediction. */
import { type PredictionJson, TERMINAL } from "@/lib/prediction.ts";
import type { FieldError } from "@/lib/problems.ts";
import type { Service } from "@/lib/service.ts";

export type ModelJson = ReturnType<Service["models"]>[number];
export type { FieldError, PredictionJson };

/** What the API answered instead: a problem of RFC 9457. */
export class Refused extends Error {
  readonly status: number;
  readonly errors: FieldError[] | undefined;

  constructor(problem: {
    title: string;
    status: number;
    detail?: string;
    errors?: FieldError[];
  }) {
    super(problem.detail ?? problem.title);
    this.status = problem.status;
    this.errors = problem.errors;
  }
}

/**
 * Ask our own API.
 *
 * @throws Refused it answered with a problem; anything else: there was no answer.
 */
export async function api<T>(path: string, options: RequestInit = {}): Promise<T> {
  // A form says itself what it is.
  const type = options.body instanceof FormData ? {} : { "Content-Type": "application/json" };
  const reply = await fetch(path, { ...options, headers: { ...type, ...options.headers } });
  const body = reply.status === 204 ? null : await reply.json();
  if (!reply.ok) throw new Refused(body);
  return body;
}

/** What to say of an error that `api` threw. */
export function reason(error: unknown): string {
  return error instanceof Refused ? error.message : "The service did not answer.";
}

export function isOver(prediction: PredictionJson): boolean {
  return TERMINAL.has(prediction.status);
}

/** Over, and nothing of it is still on its way into the storage. */
export function isSettled(prediction: PredictionJson): boolean {
  return isOver(prediction) && prediction.storage !== "pending";
}

const WORDS = {
  pending: "Waiting for Replicate",
  starting: "Starting",
  processing: "Running",
  succeeded: "Storing the result",
  failed: "Failed",
  canceled: "Canceled",
  aborted: "Stopped before it started",
};

/** What to call the state of a prediction, and whether that is good or bad. */
export function stateOf(prediction: PredictionJson): { words: string; mood: string } {
  const words = WORDS[prediction.status];
  if (prediction.status === "failed") return { words, mood: "bad" };
  if (prediction.status !== "succeeded" || !isSettled(prediction)) return { words, mood: "" };
  const lost = ["expired", "failed"].includes(prediction.storage);
  return lost ? { words: "Not stored", mood: "bad" } : { words: "Done", mood: "good" };
}

export function duration(seconds: number): string {
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

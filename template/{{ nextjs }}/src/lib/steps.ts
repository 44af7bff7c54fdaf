/** The steps of a prediction that talk to Replicate or move its output; each returns the new row. */
import "server-only";
import { allowedHosts, OutputExpired, OutputRefused } from "./fetching.ts";
import { modelOf, ownFiles } from "./inputs.ts";
import { log } from "./log.ts";
import { storeOutput } from "./outputs.ts";
import { now, type Row } from "./prediction.ts";
import type { Queue } from "./queue.ts";
import { type Gateway, isGatewayError, NoAnswer, Refused, Throttled } from "./replicate.ts";
import type { Service } from "./service.ts";
import {
  cancelUnsent,
  EXPIRED,
  fail,
  observe,
  type Remote,
  type Step,
  UNKNOWN,
  unknownSince,
} from "./state.ts";
import { StorageError } from "./storage.ts";

/** All in seconds; nothing asks Replicate about one prediction more often than `ASK_EVERY`. */
export const ASK_EVERY = 2;
const ASK_EVERY_WITH_WEBHOOK = 60;
const GIVE_UP_SENDING = 3600;
const GIVE_UP_ASKING = 86_400;
const GIVE_UP_STORING = 86_400;
const SIGNED_FOR = 3600;

export class Steps {
  readonly #service: Service;
  readonly #queue: Queue;
  readonly #gateway: Gateway;

  constructor(service: Service, queue: Queue, gateway: Gateway) {
    this.#service = service;
    this.#queue = queue;
    this.#gateway = gateway;
  }

  async take(step: Step, row: Row, signal: AbortSignal): Promise<Row> {
    switch (step) {
      case "create":
        return await this.#create(row);
      case "adopt":
        return await this.#adopt(row);
      case "ask":
        return await this.#ask(row);
      case "cancel":
        return await this.#cancel(row);
      case "store":
        return await this.#store(row, signal);
      case "erase":
        return await this.#erase(row);
      case "rest":
        return row;
    }
  }

  #askAt(soon = false): number {
    const quiet = this.#service.settings.publicUrl !== "" && !soon;
    return now() + (quiet ? ASK_EVERY_WITH_WEBHOOK : ASK_EVERY);
  }

  async #create(row: Row): Promise<Row> {
    const at = now();
    if (at > row.created_at + GIVE_UP_SENDING) {
      return fail(row, "Replicate could not be reached for an hour; nothing was sent.", at);
    }
    let input: Record<string, unknown>;
    try {
      input = await this.#published(row);
    } catch (error) {
      if (error instanceof Refused) return fail(row, error.message, at);
      if (!isGatewayError(error) && !(error instanceof StorageError)) throw error;
      return unsent(row, backoff(row.failures + 1));
    }
    if (!(await this.#queue.markSent(row, at))) return row;
    const sent = { ...row, sent_at: at, ask_at: this.#askAt(true) };
    try {
      const remote = await this.#gateway.create(sent, input, this.#wait(sent));
      return { ...observe(sent, remote, now()), ask_at: this.#askAt(), failures: 0 };
    } catch (error) {
      if (!isGatewayError(error)) throw error;
      if (error instanceof Refused) return fail(sent, error.message, now());
      if (error instanceof Throttled) {
        log.warn({ prediction: row.id, retry_after: error.retryAfter }, "throttled");
        return unsent(sent, error.retryAfter);
      }
      if (error instanceof NoAnswer) {
        log.warn({ prediction: row.id, reason: error.message }, "no answer to a create");
        return sent;
      }
      return unsent(sent, backoff(row.failures + 1));
    }
  }

  /** For how long Replicate holds its answer; not where text can be shown as it comes. */
  #wait(row: Row): number {
    const streams = modelOf(row.model)?.output === "text-stream";
    return row.mode === "run" && !streams ? this.#service.settings.runWaitSeconds : 0;
  }

  /** The input with files of ours in a form that Replicate can fetch. */
  async #published(row: Row): Promise<Record<string, unknown>> {
    const input = { ...row.input };
    for (const name of modelOf(row.model)?.files ?? []) {
      const value = input[name];
      const published = new Map<unknown, string>();
      for (const url of ownFiles(value)) published.set(url, await this.#public(row, name, url));
      const exchanged = (url: unknown) => published.get(url) ?? url;
      if (published.size > 0) {
        input[name] = Array.isArray(value) ? value.map(exchanged) : exchanged(value);
      }
    }
    return input;
  }

  /** A URL of the file for Replicate; throws Refused where it is not there any more. */
  async #public(row: Row, name: string, url: string): Promise<string> {
    const { storage } = this.#service;
    const file = await this.#service.file(row.owner, url, row.created_at);
    if (!file) throw new Refused(`The file for ${name} is not there any more.`, 0);
    const signed = await storage.sign(file.key, SIGNED_FOR);
    if (signed) return signed;
    const base = file.key.slice(file.key.lastIndexOf("/") + 1);
    return await this.#gateway.upload(base, file.content_type, await storage.get(file.key));
  }

  /** Look for a prediction whose create was never answered; it is not sent again. */
  async #adopt(row: Row): Promise<Row> {
    let end = unknownSince(row, this.#service.settings.cancelAfterSeconds);
    let remote: Remote | null = null;
    try {
      remote = await this.#gateway.find(row);
    } catch (error) {
      if (!isGatewayError(error)) throw error;
      end += GIVE_UP_ASKING; // nobody has said that it is not there
    }
    const at = now();
    if (remote) {
      const found = observe(row, remote, at);
      return row.cancel_requested ? found : { ...found, ask_at: this.#askAt() };
    }
    if (at > end) return fail(row, UNKNOWN, at);
    const failures = row.failures + 1;
    return { ...row, ask_at: Math.min(at + 5 * ASK_EVERY * failures, end + 1), failures };
  }

  async #ask(row: Row): Promise<Row> {
    const soon = row.cancel_requested;
    try {
      const remote = await this.#gateway.get(String(row.replicate_id));
      return { ...observe(row, remote, now()), ask_at: this.#askAt(soon) };
    } catch (error) {
      if (!isGatewayError(error)) throw error;
      if (error instanceof Throttled) {
        return { ...row, ask_at: now() + Math.max(ASK_EVERY, error.retryAfter) };
      }
      // It goes on at Replicate whatever we are told here, say because of a wrong token.
      const gone = error instanceof Refused && error.status === 404;
      const end = unknownSince(row, this.#service.settings.cancelAfterSeconds);
      if (now() > end + (gone ? 0 : GIVE_UP_ASKING)) return fail(row, error.message, now());
      return { ...row, ask_at: this.#askAt(soon) };
    }
  }

  async #cancel(row: Row): Promise<Row> {
    if (row.replicate_id === null) return cancelUnsent(row, now());
    try {
      const remote = await this.#gateway.cancel(row.replicate_id);
      return { ...observe(row, remote, now()), ask_at: this.#askAt(true) };
    } catch (error) {
      if (!isGatewayError(error)) throw error;
      log.warn({ prediction: row.id, reason: error.message }, "cancel not confirmed");
      return await this.#ask(row);
    }
  }

  async #store(row: Row, signal: AbortSignal): Promise<Row> {
    const { settings, storage } = this.#service;
    const kind = modelOf(row.model)?.output ?? "json";
    try {
      const { files, output } = await storeOutput(row.id, row.remote_output, kind, {
        storage,
        allowed: allowedHosts(settings),
        maxBytes: settings.maxOutputBytes,
        signal,
      });
      const empty = { remote_output: null, failures: 0 };
      return { ...row, ...empty, storage: "stored", files, output };
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      if (error instanceof OutputExpired) {
        log.error({ prediction: row.id }, "output expired before it was stored");
        return { ...row, storage: "expired", error: EXPIRED, remote_output: null };
      }
      if (error instanceof OutputRefused) {
        log.error({ prediction: row.id, reason }, "output refused");
        return { ...row, storage: "failed", error: reason, remote_output: null };
      }
      // Whatever it was, the next try may go well.
      log.warn({ prediction: row.id, reason }, "output not stored yet");
      if (now() > (row.completed_at ?? row.created_at) + GIVE_UP_STORING) {
        return { ...row, storage: "failed", error: reason, remote_output: null };
      }
      return { ...row, failures: row.failures + 1 };
    }
  }

  async #erase(row: Row): Promise<Row> {
    try {
      await this.#service.storage.delete(`${row.id}/`);
    } catch (error) {
      log.warn({ prediction: row.id, reason: String(error) }, "output not erased yet");
      return { ...row, failures: row.failures + 1 };
    }
    // What stays of a deleted prediction is its accounting.
    const empty = { input: {}, output: null, remote_output: null, files: [] };
    return { ...row, ...empty, storage: "none", erased: true };
  }
}

/** Seconds until the next try. */
export function backoff(failures: number): number {
  return Math.min(2 ** failures, 300);
}

/** Nothing was created: the row may be sent again in so many seconds. */
function unsent(row: Row, seconds: number): Row {
  return { ...row, sent_at: null, ask_at: now() + seconds, failures: row.failures + 1 };
}

/** What a caller can do: start, look at, cancel and delete predictions of their own. */
import "server-only";
import { randomBytes } from "node:crypto";
import { networkOf } from "./addresses.ts";
import { checkedInput, modelOf, ownFiles, smallestInput } from "./inputs.ts";
import { LimitReached } from "./limits.ts";
import { log } from "./log.ts";
import { REGISTRY } from "./models.ts";
import {
  isOver,
  newRow,
  now,
  type Prediction,
  present,
  type Row,
  type StoredFile,
} from "./prediction.ts";
import { withPrice } from "./prices.ts";
import { invalid, invalidFields, notFound, Problem } from "./problems.ts";
import { type Mode, type Model, RUN_SECONDS } from "./registry.ts";
import type { Settings } from "./settings.ts";
import { aboutPrediction } from "./state.ts";
import type { Storage } from "./storage.ts";
import { KeyReused, RunLately, type Store } from "./store.ts";
import type { UploadStore } from "./upload-store.ts";
import { limited, Uploads } from "./uploads.ts";
import { type HeaderSource, MissingHeaders, verify, WebhookRejected } from "./webhook.ts";

const ID = /^[0-9a-f]{32}$/;
const OWN_FILE = /^\/files\/([0-9a-f]{32})\/(0|[1-9][0-9]{0,5})$/;
/** Seconds for which a model counts as warm after a prediction of it was created. */
const PRIME_EVERY = 300;
const WEEK = 7 * 86_400;

/** Who starts a prediction, and with what. */
export interface Start {
  caller: string;
  address: string;
  model: string;
  input: Record<string, unknown>;
  idempotencyKey: string | null;
}

/** The operations behind the HTTP contract. */
export class Service {
  readonly settings: Settings;
  readonly store: Store;
  readonly storage: Storage;
  readonly uploads: Uploads;

  constructor(settings: Settings, store: Store, uploads: UploadStore, storage: Storage) {
    this.settings = settings;
    this.store = store;
    this.storage = storage;
    this.uploads = new Uploads(settings, uploads, storage);
  }

  /** Every model of the project as `GET /api/models` shows it. */
  models() {
    return Object.values(REGISTRY).map((model) => ({
      key: model.key,
      ref: model.ref,
      kind: model.kind,
      mode: this.mode(model),
      seconds: model.seconds,
      output: model.output,
      prime: this.settings.prime && model.kind === "community",
      input: model.fields,
    }));
  }

  /** `run` where an answer within seconds is likely; a setting overrides it. */
  mode(model: Model): Mode {
    const its = this.settings.modelSettings[model.key];
    if (its?.mode) return its.mode;
    const quick = model.seconds !== null && model.seconds < RUN_SECONDS;
    return its?.deployment && quick ? "run" : model.mode;
  }

  /**
   * Write the row that a worker sends to Replicate; the same key gives the same prediction.
   *
   * @throws Problem 422 unknown model, wrong input or a reused key; 429 a limit is reached.
   */
  async start(
    { caller, address, model: key, input, idempotencyKey }: Start,
    unlessSince?: number,
  ): Promise<Prediction> {
    const model = modelOf(key);
    if (!model) throw invalid("model", `unknown; one of ${Object.keys(REGISTRY).join(", ")}`);
    if (idempotencyKey !== null && !/^[\x21-\x7e]{1,255}$/.test(idempotencyKey)) {
      throw invalid("Idempotency-Key", "1 to 255 printable ASCII characters, no spaces");
    }
    const row = newRow({
      id: randomBytes(16).toString("hex"),
      owner: caller,
      address: networkOf(address),
      model: key,
      ref: model.ref,
      deployment: this.settings.modelSettings[key]?.deployment ?? null,
      mode: this.mode(model),
      input: checkedInput(model, input),
      idempotency_key: idempotencyKey,
      created_at: now(),
    });
    await this.#checkFiles(caller, model, row.input);
    try {
      return present(await this.store.add(row, this.settings.limits, unlessSince));
    } catch (error) {
      if (error instanceof KeyReused) {
        throw invalid("Idempotency-Key", "was used for a different request");
      }
      throw error instanceof LimitReached ? limited(error) : error;
    }
  }

  async #checkFiles(caller: string, model: Model, input: Record<string, unknown>): Promise<void> {
    const missing: string[] = [];
    for (const name of model.files) {
      for (const url of ownFiles(input[name])) {
        if (!(await this.file(caller, url))) missing.push(name);
      }
    }
    if (missing.length > 0) {
      const detail = "no such file of yours";
      throw invalidFields(missing.map((name) => ({ field: `input.${name}`, detail })));
    }
  }

  /** The caller's own prediction; throws Problem 404 for any other. */
  async get(caller: string, id: string): Promise<Prediction> {
    const row = ID.test(id) ? await this.store.get(id) : null;
    if (row?.owner !== caller) throw notFound();
    return present(row);
  }

  /** The caller's own, newest first, and the cursor of the next page; Problem 422. */
  async page(caller: string, cursor: string | null, limit: number) {
    const found = cursor === null ? null : /^(\d{1,12}(?:\.\d{1,9})?)_([0-9a-f]{32})$/.exec(cursor);
    if (cursor !== null && !found) {
      throw invalid("cursor", "take it from next_cursor of the page before");
    }
    const before = found && { createdAt: Number(found[1]), id: String(found[2]) };
    const rows = await this.store.page(caller, before, limit + 1);
    const last = rows.length > limit ? rows[limit - 1] : undefined;
    return {
      predictions: rows.slice(0, limit).map(present),
      nextCursor: last ? `${last.created_at}_${last.id}` : null,
    };
  }

  /** Stop the caller's own prediction and its bill; Problem 404, or 409 where it is over. */
  async cancel(caller: string, id: string): Promise<Prediction> {
    await this.get(caller, id);
    const row = this.#stopped(await this.store.requestCancel(id, now()));
    if (!row) {
      throw new Problem(409, "Already over", "The prediction had ended before it was canceled.");
    }
    return present(row);
  }

  /** Remove the caller's own prediction with its outputs; Problem 404. */
  async delete(caller: string, id: string): Promise<void> {
    await this.get(caller, id);
    this.#stopped(await this.store.delete(id, now()));
  }

  #stopped(row: Row | null): Row | null {
    if (row && isOver(row)) this.logOver(row); // never sent: no worker has anything to do with it
    return row;
  }

  /** The line in the log about a prediction that is over; the last one of an id counts. */
  logOver(row: Row): void {
    log.info({ ...withPrice(row, this.settings), ref: row.ref }, "prediction over");
  }

  /**
   * Wake a community model up by one small prediction; false where it is warm already.
   *
   * @throws Problem 404 unknown model; 409 official, or switched off.
   */
  async prime(caller: string, address: string, key: string): Promise<boolean> {
    const model = modelOf(key);
    if (!model) throw notFound();
    if (model.kind === "official") {
      throw new Problem(409, "Always warm", "Official models need no priming and bill per run.");
    }
    if (!this.settings.prime) {
      throw new Problem(409, "Priming is off", "Set PRIME=1 to allow it; each one is billed.");
    }
    const own = { caller, address, model: key, idempotencyKey: null };
    try {
      await this.start({ ...own, input: smallestInput(model) }, now() - PRIME_EVERY);
      return true;
    } catch (error) {
      if (error instanceof RunLately) return false;
      throw error;
    }
  }

  /**
   * Keep a webhook for the worker; what it says changes nothing before that.
   *
   * @throws Problem 400 headers missing, 401 not signed by Replicate.
   */
  async receive(body: Uint8Array, headers: HeaderSource): Promise<void> {
    const at = now();
    const id = this.#verified(body, headers, at);
    const event = aboutPrediction(body);
    if (event) await this.store.receive({ id, received_at: at, ...event }, at);
  }

  #verified(body: Uint8Array, headers: HeaderSource, at: number): string {
    try {
      return verify(body, headers, this.settings.webhookKeys, at);
    } catch (error) {
      if (error instanceof MissingHeaders) {
        throw new Problem(400, "Not a webhook of Replicate", error.message);
      }
      if (error instanceof WebhookRejected) {
        throw new Problem(401, "Not signed by Replicate", error.message);
      }
      throw error;
    }
  }

  /** The caller's own stored output or upload at `/files/<id>/<index>`, now or `at` some time. */
  async file(caller: string, url: string, at = now()): Promise<StoredFile | null> {
    const [, id = "", index = ""] = OWN_FILE.exec(url) ?? [];
    if (!id) return null;
    const row = await this.store.get(id);
    if (row) {
      const shown = row.owner === caller && row.storage === "stored";
      return (shown && row.files[Number(index)]) || null;
    }
    return index === "0" ? await this.uploads.find(caller, id, at) : null;
  }

  /** Community models of which another version ran than the pinned one, this week. */
  async drift(): Promise<{ model: string; pinned: string; ran: string }[]> {
    const ran = await this.store.versionsRan(now() - WEEK);
    return ran.flatMap(({ model, version }) => {
      const pinned = modelOf(model)?.version;
      return pinned && pinned !== version ? [{ model, pinned, ran: version }] : [];
    });
  }
}

/**
 * The worker: claims what is due, does the next step, gives it back. Any number may run.
 *
 * The row is the queue (`due_at`) and the fence (`attempts`): a worker that dies leaves a lease
 * that runs out, and the next one goes on where it stopped.
 */
import "server-only";
import { setTimeout as sleep } from "node:timers/promises";
import { modelOf } from "./inputs.ts";
import { log } from "./log.ts";
import { isOver, now, type Row } from "./prediction.ts";
import type { Queue } from "./queue.ts";
import type { Gateway } from "./replicate.ts";
import type { Service } from "./service.ts";
import { nextStep, observe, parseRemote } from "./state.ts";
import { ASK_EVERY, backoff, Steps } from "./steps.ts";

/** All in seconds. */
const LEASE = 30;
const POLL = 0.25;
const TIDY_EVERY = 600;

/** Another worker has the row. */
class LeaseLost extends Error {}

/** Takes due rows and moves each one step, `WORKER_CONCURRENCY` of them side by side. */
export class Worker {
  readonly #service: Service;
  readonly #queue: Queue;
  readonly #steps: Steps;

  constructor(service: Service, queue: Queue, gateway: Gateway) {
    this.#service = service;
    this.#queue = queue;
    this.#steps = new Steps(service, queue, gateway);
  }

  /** Work until `stop`; rows in hand are finished, or given back by their lease. */
  async run(stop: AbortSignal): Promise<void> {
    const lanes = { length: this.#service.settings.workerConcurrency };
    await Promise.all([this.#tidy(stop), ...Array.from(lanes, () => this.#lane(stop))]);
  }

  /** Erase what nobody needs any more. */
  async tidy(): Promise<void> {
    try {
      await this.#service.uploads.tidy(now());
    } catch (error) {
      log.error({ err: error }, "old uploads and webhooks are not erased");
    }
  }

  async #tidy(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      await this.tidy();
      await sleep(TIDY_EVERY * 1000, undefined, { signal: stop }).catch(() => undefined);
    }
  }

  /** Work for so many seconds at most, and until nothing is due: where no process stays. */
  async batch(seconds: number): Promise<void> {
    const end = now() + seconds;
    // A lane that found something opens the next one: where nothing is due, one question is asked.
    const lane = async (more: number): Promise<void> => {
      const row = now() < end ? await this.#queue.claim(now(), LEASE) : null;
      if (!row) return;
      const others = more > 0 ? lane(more - 1) : undefined;
      await this.#work(row);
      await Promise.all([others, lane(0)]);
    };
    await lane(this.#service.settings.workerConcurrency - 1);
  }

  async #lane(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      let pause = POLL;
      try {
        const row = await this.#queue.claim(now(), LEASE);
        if (row) {
          await this.#work(row);
          continue;
        }
      } catch (error) {
        log.error({ err: error }, "the database cannot be worked with: is it there, and migrated?");
        pause = ASK_EVERY;
      }
      await sleep(pause * 1000, undefined, { signal: stop }).catch(() => undefined);
    }
  }

  /** Do the next step of a claimed row. */
  async #work(row: Row): Promise<void> {
    const lease = new AbortController();
    const done = new AbortController();
    void this.#renew(row, lease, done.signal);
    try {
      await this.#advance(row, lease.signal);
    } catch (error) {
      if (lease.signal.aborted) {
        log.warn({ prediction: row.id }, "lease lost");
      } else {
        log.error({ err: error, prediction: row.id }, "step failed");
        const failures = row.failures + 1;
        const later = { due_at: now() + backoff(failures), leased: false, failures };
        await this.#queue.note(row, { ...row, ...later });
      }
    } finally {
      done.abort();
    }
  }

  /** Keep the lease until `done`; abort it where another has the row, or may have it by now. */
  async #renew(row: Row, lease: AbortController, done: AbortSignal): Promise<void> {
    let mine = true;
    let end = performance.now() + LEASE * 1000;
    while (mine && performance.now() < end) {
      await sleep((LEASE / 3) * 1000, undefined, { signal: done }).catch(() => undefined);
      if (done.aborted) return;
      const began = performance.now();
      try {
        mine = await this.#queue.renew(row, now() + LEASE);
        end = began + LEASE * 1000;
      } catch (error) {
        log.warn({ prediction: row.id, reason: String(error) }, "lease not renewed");
      }
    }
    lease.abort(new LeaseLost());
  }

  async #advance(row: Row, signal: AbortSignal): Promise<void> {
    const events = await this.#queue.events(row);
    let seen = row;
    for (const event of events) {
      try {
        seen = observe(seen, parseRemote(event.body), now());
      } catch (error) {
        log.error({ prediction: row.id, reason: String(error) }, "event not understood");
      }
    }
    if (seen !== row) {
      if (!(await this.#queue.note(row, seen))) return;
      this.#report(row, seen);
    }
    const moved = await this.#steps.take(nextStep(seen, now()), seen, signal);
    const next = { ...moved, due_at: dueAt(moved), leased: false };
    if (!(await this.#queue.save(seen, next, events))) {
      log.warn({ prediction: row.id }, "lease lost");
    } else {
      this.#report(seen, next);
    }
  }

  /** Say that it is over, and again where Replicate said later how long it ran. */
  #report(old: Row, next: Row): void {
    const ended = isOver(next) && !isOver(old);
    const late = isOver(next) && next.predict_seconds !== old.predict_seconds;
    if (ended || late) this.#service.logOver(next);
    if (ended) reportDrift(next);
  }
}

/** When someone must look again, by what is left to do. */
function dueAt(row: Row): number | null {
  const at = now();
  const step = nextStep(row, at);
  if (step === "rest") return isOver(row) ? null : row.ask_at;
  const failed = (step === "store" || step === "erase") && row.failures > 0;
  return failed ? at + backoff(row.failures) : at;
}

function reportDrift(row: Row): void {
  const pinned = modelOf(row.model)?.version;
  if (pinned && row.version_ran && row.version_ran !== pinned) {
    const names = { prediction: row.id, model: row.model, pinned, ran: row.version_ran };
    log.error(names, "another version ran than the pinned one");
  }
}

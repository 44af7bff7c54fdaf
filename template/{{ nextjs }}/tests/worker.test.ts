/** The worker's lease: renewed while it works, and its work stopped where another has the row. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { openDatabase } from "@/lib/database.ts";
import { smallestInput } from "@/lib/inputs.ts";
import { migrate } from "@/lib/migrations.ts";
import { REGISTRY } from "@/lib/models.ts";
import { now, type Row } from "@/lib/prediction.ts";
import { Queue } from "@/lib/queue.ts";
import { Gateway } from "@/lib/replicate.ts";
import { Service } from "@/lib/service.ts";
import { loadSettings } from "@/lib/settings.ts";
import { openStorage } from "@/lib/storage.ts";
import { Store } from "@/lib/store.ts";
import { UploadStore } from "@/lib/upload-store.ts";
import { Worker } from "@/lib/worker.ts";

/** The ten seconds between two renewals last a tenth of one. */
const FASTER = 100;

vi.mock("node:timers/promises", async (original) => {
  const real = await original<typeof import("node:timers/promises")>();
  const setTimeout: typeof real.setTimeout = (milliseconds = 0, ...more) =>
    real.setTimeout(milliseconds / FASTER, ...more);
  return { ...real, setTimeout };
});

/** A queue whose renewals take longer than the time between them, as on a slow network. */
class SlowQueue extends Queue {
  /** What throws, as where the database is away. */
  broken: "renew" | "save" | null = null;
  renewed = 0;
  sideBySide = 0;
  most = 0;

  override async renew(row: Row, until: number): Promise<boolean> {
    this.sideBySide += 1;
    this.most = Math.max(this.most, this.sideBySide);
    await sleep(200 * FASTER);
    this.sideBySide -= 1;
    this.renewed += 1;
    if (this.broken === "renew") throw new Error("the database is away");
    return await super.renew(row, until);
  }

  override async save(...given: Parameters<Queue["save"]>): Promise<boolean> {
    if (this.broken === "save") throw new Error("the database is away");
    return await super.save(...given);
  }
}

let folder: string;
let server: Server;
let store: Store;
let queue: SlowQueue;
let worker: Worker;
/** Whether the output is being fetched, and whether all of it comes. */
let fetching: boolean;
let whole: boolean;

beforeEach(async () => {
  fetching = false;
  whole = false;
  server = createServer((_, response) => {
    fetching = true;
    response.on("close", () => (fetching = false));
    response.writeHead(200).write("the rest comes late or never");
    if (whole) response.end();
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  folder = await mkdtemp(join(tmpdir(), "worker-"));
  const url = `sqlite:///${join(folder, "test.db")}`;
  await migrate(url);
  const database = openDatabase(url);
  const settings = loadSettings({
    ENVIRONMENT: "development",
    REPLICATE_API_TOKEN: "r8_test",
    REPLICATE_BASE_URL: `${origin}/v1`,
  });
  store = new Store(database);
  queue = new SlowQueue(database);
  const storage = await openStorage(join(folder, "outputs"));
  const service = new Service(settings, store, new UploadStore(database), storage);
  worker = new Worker(service, queue, new Gateway(settings));
  const [model] = Object.values(REGISTRY);
  if (!model) throw new Error("no models");
  const who = { caller: "me", address: "::1", idempotencyKey: null };
  await service.start({ ...who, model: model.key, input: smallestInput(model) });
  const row = await queue.claim(now(), 10);
  if (!row) throw new Error("nothing is due");
  const ended = { status: "succeeded", storage: "pending", replicate_id: "r1" } as const;
  const due = { sent_at: now(), due_at: now(), remote_output: [`${origin}/out`] };
  await queue.save(row, { ...row, ...ended, ...due });
});

afterEach(async () => {
  vi.restoreAllMocks();
  server.closeAllConnections();
  server.close();
  await store.close();
  await rm(folder, { recursive: true });
});

test("a lease is renewed by one try at a time, and work stops where it is lost", async () => {
  const working = worker.batch(1);
  await vi.waitUntil(() => queue.renewed >= 3, 10_000);
  expect(fetching).toBe(true);
  expect(queue.most).toBe(1);
  expect(await queue.claim(now(), 60)).toBeNull();
  const another = await queue.claim(now() + 60, 60);
  await vi.waitUntil(() => !fetching, 10_000);
  await working;
  expect(await store.get(String(another?.id))).toEqual(another);
});

test("work stops where the lease could not be renewed in its time", async () => {
  queue.broken = "renew";
  const real = performance.now.bind(performance);
  vi.spyOn(performance, "now").mockImplementation(() => real() * FASTER);
  const working = worker.batch(1);
  await vi.waitUntil(() => fetching, 10_000);
  await vi.waitUntil(() => !fetching, 10_000);
  await working;
  expect(queue.renewed).toBeGreaterThan(0);
});

test("a lease is renewed no longer than the work lasts", async () => {
  whole = true;
  await worker.batch(1);
  await sleep(300 * FASTER);
  expect(queue.most).toBe(0);
  expect(await queue.claim(now() + 60, 60)).toBeNull();
});

test("what breaks over a row puts it off", async () => {
  whole = true;
  queue.broken = "save";
  await worker.batch(0.5);
  expect(await queue.claim(now(), 60)).toBeNull();
  const later = await queue.claim(now() + 10, 60);
  expect(later?.failures).toBe(1);
});

test("a batch that has no time takes nothing", async () => {
  await worker.batch(0);
  expect(await queue.claim(now(), 60)).not.toBeNull();
});

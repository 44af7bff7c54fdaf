/** The service on a real database: rows, claims, fences, limits, uploads. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDatabase } from "@/lib/database.ts";
import { smallestInput } from "@/lib/inputs.ts";
import { migrate } from "@/lib/migrations.ts";
import { REGISTRY } from "@/lib/models.ts";
import { now, type Row } from "@/lib/prediction.ts";
import { Problem } from "@/lib/problems.ts";
import { Queue } from "@/lib/queue.ts";
import { Service } from "@/lib/service.ts";
import { loadSettings } from "@/lib/settings.ts";
import { openStorage } from "@/lib/storage.ts";
import { Store } from "@/lib/store.ts";
import { UploadStore } from "@/lib/upload-store.ts";
import { EVENT_SECONDS, UPLOAD_MARGIN, UPLOAD_SECONDS } from "@/lib/uploads.ts";

const [KEY = "", MODEL] = Object.entries(REGISTRY)[0] ?? [];
const environment = { ENVIRONMENT: "development", REPLICATE_API_TOKEN: "r8_test" };

let folder: string;
let service: Service;
let store: Store;
let queue: Queue;

async function open(more: Record<string, string> = {}): Promise<void> {
  const url = `sqlite:///${join(folder, "test.db")}`;
  await migrate(url);
  const database = openDatabase(url);
  store = new Store(database);
  queue = new Queue(database);
  const storage = await openStorage(join(folder, "outputs"));
  const settings = loadSettings({ ...environment, ...more });
  service = new Service(settings, store, new UploadStore(database), storage);
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "service-"));
  await open();
});

afterEach(async () => {
  await store.close();
  await rm(folder, { recursive: true });
});

function start(caller = "me", idempotencyKey: string | null = null) {
  const input = MODEL ? smallestInput(MODEL) : {};
  return service.start({ caller, address: "192.0.2.1", model: KEY, input, idempotencyKey });
}

async function claimed(): Promise<Row> {
  const row = await queue.claim(now(), 10);
  if (!row) throw new Error("nothing is due");
  return row;
}

test("a prediction is its caller's own", async () => {
  const { row } = await start();
  expect((await service.get("me", row.id)).row).toEqual(row);
  await expect(service.get("you", row.id)).rejects.toThrow(Problem);
  await expect(service.cancel("you", row.id)).rejects.toThrow(Problem);
  expect((await service.page("you", null, 20)).predictions).toEqual([]);
});

test("the same key is the same prediction, started once", async () => {
  const started = await Promise.all(Array.from({ length: 10 }, () => start("me", "key")));
  expect(new Set(started.map(({ row }) => row.id)).size).toBe(1);
  expect((await start("you", "key")).row.id).not.toBe(started[0]?.row.id);
});

test("each row is claimed once", async () => {
  for (let count = 0; count < 5; count += 1) await start();
  const rows = await Promise.all(Array.from({ length: 8 }, () => queue.claim(now(), 10)));
  const ids = rows.flatMap((row) => (row ? [row.id] : []));
  expect(ids.length).toBe(5);
  expect(new Set(ids).size).toBe(5);
});

test("a dead worker's row comes due again, and the worker is fenced out", async () => {
  await start();
  const first = await queue.claim(now(), -1);
  const second = await claimed();
  expect(first?.id).toBe(second.id);
  expect(await queue.save(first ?? second, { ...second, error: "late" })).toBe(false);
  expect(await queue.save(second, second)).toBe(true);
});

test("what is canceled before it is sent is never sent", async () => {
  const { row } = await start();
  const held = await claimed();
  expect((await service.cancel("me", row.id)).row.status).toBe("canceled");
  expect(await queue.markSent(held, now())).toBe(false);
  await expect(service.cancel("me", row.id)).rejects.toMatchObject({ status: 409 });
});

test("an event that comes meanwhile makes the row due at once", async () => {
  const { row } = await start();
  const held = await claimed();
  const event = { id: "msg_1", replicate_id: "r1", row_id: row.id, body: {}, received_at: now() };
  expect(await store.receive(event, now())).toBe(true);
  expect(await store.receive(event, now())).toBe(false);
  await queue.save(held, { ...held, due_at: null });
  const again = await claimed();
  expect(await queue.events(again)).toHaveLength(1);
});

test("a limit holds however many start at once", async () => {
  await store.close();
  await open({ CALLER_PER_MINUTE: "3" });
  const started = await Promise.allSettled(Array.from({ length: 8 }, () => start()));
  expect(started.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
  await expect(start()).rejects.toMatchObject({ status: 429, title: "Too many requests" });
  await expect(start("you")).resolves.toBeDefined();
});

test("an upload is erased when nobody can need it", async () => {
  async function* content() {
    yield Buffer.from("a picture");
  }
  const at = now();
  const url = await service.uploads.save("me", "::1", "image/png", content());
  const file = await service.file("me", url);
  expect(file?.size).toBe(9);
  expect(await service.file("you", url)).toBeNull();
  const day = at + UPLOAD_SECONDS;
  expect(await service.file("me", url, day - 1)).toEqual(file);
  expect(await service.file("me", url, day + 1)).toBeNull();
  await service.uploads.tidy(day + UPLOAD_MARGIN - 1);
  expect(await service.file("me", url)).toEqual(file);
  await service.uploads.tidy(day + UPLOAD_MARGIN + 1);
  expect(await service.file("me", url)).toBeNull();
});

test("webhooks are forgotten after a day, unless their row still waits for them", async () => {
  const { row } = await start();
  const at = now();
  const event = { replicate_id: "r1", row_id: row.id, body: {}, received_at: at };
  const nobodys = { id: "msg_2", replicate_id: "r2", row_id: null, body: {}, received_at: at };
  await store.receive({ id: "msg_1", ...event }, at);
  await store.receive(nobodys, at);
  await service.uploads.tidy(at + EVENT_SECONDS + 1);
  expect(await store.receive({ id: "msg_1", ...event }, at)).toBe(false);
  expect(await store.receive(nobodys, at)).toBe(true);
});

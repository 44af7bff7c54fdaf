/** Replicate's official SDK, unchanged, against the emulator in `dev/`. */
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { REGISTRY } from "@/lib/models.ts";
import { Gateway } from "@/lib/replicate.ts";
import { loadSettings } from "@/lib/settings.ts";
import { createEmulator, WEBHOOK_SECRET } from "../dev/emulator.ts";

const MODELS = Object.values(REGISTRY);

let emulator: ReturnType<typeof createEmulator>;
let url: string;

beforeEach(async () => {
  emulator = createEmulator({ run_seconds: 0, cold_start_seconds: 0 });
  await new Promise<void>((resolve) => emulator.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(emulator.address() as AddressInfo).port}`;
});

afterEach(() => {
  emulator.closeAllConnections();
  emulator.close();
});

function gateway(): Gateway {
  return new Gateway(
    loadSettings({
      ENVIRONMENT: "development",
      REPLICATE_API_TOKEN: "r8_test",
      REPLICATE_BASE_URL: `${url}/v1`,
    }),
  );
}

test("every model is served as it is pinned", async () => {
  for (const model of MODELS) {
    const shown = await gateway().describe(model.ownerName);
    expect(shown).toMatchObject({ is_official: model.kind === "official" });
    if (model.version) expect(shown).toMatchObject({ latest_version: { id: model.version } });
  }
});

test("the secret of its webhooks is the one that signs them", async () => {
  expect(await gateway().webhookSecret()).toBe(WEBHOOK_SECRET);
});

test("without a token it answers as Replicate does", async () => {
  const reply = await fetch(`${url}/v1/account`);
  expect(reply.status).toBe(401);
  expect(reply.headers.get("content-type")).toBe("application/problem+json");
  expect(await reply.json()).toMatchObject({ title: "Unauthenticated", status: 401 });
});

test("a fault that was ordered happens once", async () => {
  const order = { method: "POST", body: JSON.stringify({ fault: "create_402" }) };
  expect((await fetch(`${url}/_emulator/faults`, order)).status).toBe(200);
  const create = { method: "POST", body: JSON.stringify({ version: MODELS[0]?.ref, input: {} }) };
  const headers = { authorization: "Bearer r8_test" };
  const statuses = [];
  for (let i = 0; i < 2; i++) {
    statuses.push((await fetch(`${url}/v1/predictions`, { ...create, headers })).status);
  }
  expect(statuses[0]).toBe(402);
  expect(statuses[1]).not.toBe(402);
});

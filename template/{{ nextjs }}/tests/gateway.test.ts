/** The gateway on the official SDK: sent once, with a deadline, and every answer understood. */
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { newRow } from "@/lib/prediction.ts";
import { Gateway, NoAnswer, NotSent, Refused, Throttled } from "@/lib/replicate.ts";
import { loadSettings } from "@/lib/settings.ts";

const row = newRow({
  ...{ id: "0123456789abcdef".repeat(2), owner: "me", address: "::1", mode: "webhook" },
  ...{ model: "m", ref: "owner/m", deployment: null, idempotency_key: null, created_at: 1 },
  input: {},
});

let server: Server;
let gateway: Gateway;
let seen: { method?: string; url?: string; headers: Record<string, unknown> }[];
let answer: RequestListener;

beforeEach(async () => {
  seen = [];
  server = createServer((request, response) => {
    const { method = "", url = "", headers } = request;
    seen.push({ method, url, headers });
    answer(request, response);
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  gateway = at(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`);
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

function at(url: string): Gateway {
  const environment = { ENVIRONMENT: "development", REPLICATE_API_TOKEN: "r8_test" };
  return new Gateway(loadSettings({ ...environment, REPLICATE_BASE_URL: url }));
}

function says(status: number, body: object): void {
  answer = (_, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
}

test("a create is sent once, with its deadline", async () => {
  says(201, { id: "abc", status: "starting" });
  expect(await gateway.create(row, {}, 5)).toMatchObject({ id: "abc", status: "starting" });
  expect(seen).toHaveLength(1);
  expect(seen[0]).toMatchObject({ method: "POST", url: "/v1/predictions" });
  expect(seen[0]?.headers).toMatchObject({ "cancel-after": "600s", prefer: "wait=5" });
});

test.each([
  [429, { detail: "slow down", retry_after: 7 }, Throttled],
  [402, { title: "Insufficient credit" }, Refused],
  [422, { title: "Input validation failed", detail: "- input: prompt is required" }, Refused],
  [408, { title: "Request timeout" }, NoAnswer],
  [500, { title: "Server error" }, NoAnswer],
  [201, { not: "a prediction" }, NoAnswer],
])("a create that is answered %d is never repeated", async (status, body, error) => {
  says(status, body);
  await expect(gateway.create(row, {})).rejects.toThrow(error);
  expect(seen).toHaveLength(1);
});

test("a connection that breaks may have sent it, and is not opened again", async () => {
  answer = (request) => request.socket.destroy();
  await expect(gateway.create(row, {})).rejects.toThrow(NoAnswer);
  expect(seen).toHaveLength(1);
});

test("a redirect is not followed: nobody else is told the token", async () => {
  answer = (_, response) => response.writeHead(307, { location: "/elsewhere" }).end();
  await expect(gateway.create(row, {})).rejects.toThrow(NoAnswer);
  expect(seen).toHaveLength(1);
});

test("a connection that never opens has sent nothing", async () => {
  await new Promise((closed) => server.close(closed));
  await expect(gateway.create(row, {})).rejects.toThrow(NotSent);
});

test("how long to wait is understood", async () => {
  says(429, { detail: "slow down", retry_after: 7 });
  await expect(gateway.get("abc")).rejects.toMatchObject({ retryAfter: 7 });
});

test("a lost create is found by its webhook, page after page", async () => {
  answer = (request, response) => {
    const last = request.url?.includes("cursor=");
    const webhook = `https://us.example/api/webhooks/replicate?prediction=${row.id}`;
    const mine = { id: "abc", status: "processing", webhook };
    const page = last
      ? { results: [{ id: "x", status: "starting" }, mine], next: null }
      : { results: [], next: "https://elsewhere.example/v1/predictions?cursor=2" };
    response.end(JSON.stringify(request.url?.endsWith("/abc") ? mine : page));
  };
  expect(await gateway.find(row)).toMatchObject({ id: "abc" });
  expect(seen).toHaveLength(3);
});

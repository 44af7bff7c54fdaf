/** The webhook signature, against the table of hostile requests that every language shares. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { MissingHeaders, signingKeys, verify, WebhookRejected } from "@/lib/webhook.ts";

interface HostileRequest {
  name: string;
  expected: "ok" | "missing" | "bad";
  secrets: string;
  now: number;
  headers: [string, string][];
  body: string;
}

const table = JSON.parse(readFileSync(new URL("webhooks.json", import.meta.url), "utf8")) as {
  requests: HostileRequest[];
  secrets: { name: string; value: string; keys: string[] | null }[];
};

/** What the verifier says; anything else that it throws comes through. */
function verdict(request: HostileRequest): string {
  const given = new Map(request.headers.map(([name, value]) => [name.toLowerCase(), value]));
  const headers = { get: (name: string) => given.get(name) ?? null };
  const body = Buffer.from(request.body, "base64");
  try {
    const id = verify(body, headers, signingKeys(request.secrets), request.now);
    expect(id).toBe(given.get("webhook-id"));
    return "ok";
  } catch (error) {
    if (error instanceof MissingHeaders) return "missing";
    if (error instanceof WebhookRejected) return "bad";
    throw error;
  }
}

test.each(table.requests)("a request: $name", (request) => {
  expect(verdict(request)).toBe(request.expected);
});

describe("a secret", () => {
  test.each(table.secrets)("$name", ({ value, keys }) => {
    if (keys === null) {
      expect(() => signingKeys(value)).toThrow("REPLICATE_WEBHOOK_SECRET");
    } else {
      expect(signingKeys(value).map((key) => key.toString("base64"))).toEqual(keys);
    }
  });

  test("is not told when it is refused", () => {
    expect(() => signingKeys("whsec_!secret!")).toThrow(/^(?!.*!secret!)/);
  });
});

test("without keys nothing is accepted", () => {
  const [example] = table.requests;
  const headers = new Headers(example?.headers);
  const body = Buffer.from(example?.body ?? "", "base64");
  expect(() => verify(body, headers, [], example?.now ?? 0)).toThrow(WebhookRejected);
});

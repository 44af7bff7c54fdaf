/**
 * Webhook signatures, as Replicate makes them: https://replicate.com/docs/topics/webhooks.
 *
 * `webhook-signature` holds space-separated `v1,<base64>` entries; each is an HMAC-SHA256 over
 * `<webhook-id>.<webhook-timestamp>.<body>` with the key after `whsec_`.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

/** How far the timestamp may be from now, in seconds, both ways: older ones are replays. */
export const TOLERANCE = 300;

const MOST_SIGNATURES = 16;
const SHORTEST_KEY = 16;

/** The request is not a webhook that Replicate signed. */
export class WebhookRejected extends Error {}

/** It does not even carry the three webhook headers. */
export class MissingHeaders extends WebhookRejected {}

/**
 * The keys in one or two `whsec_…` secrets, separated by white space: two are active while a secret
 * is being rotated.
 *
 * @throws Error a secret is not `whsec_` and standard base64 of at least 16 bytes.
 */
export function signingKeys(secrets: string): Buffer[] {
  const parts = secrets.split(/\s+/).filter(Boolean);
  if (parts.length < 1 || parts.length > 2) {
    throw new Error("REPLICATE_WEBHOOK_SECRET holds one secret, or two during a rotation");
  }
  return parts.map(signingKey);
}

function signingKey(secret: string): Buffer {
  if (!secret.startsWith("whsec_")) {
    throw new Error("REPLICATE_WEBHOOK_SECRET must start with whsec_");
  }
  const text = secret.slice("whsec_".length);
  const key = Buffer.from(text, "base64");
  // Node skips what is not base64: only what comes out the same went in whole.
  if (key.toString("base64") !== text) {
    throw new Error("REPLICATE_WEBHOOK_SECRET is not standard base64 after whsec_");
  }
  if (key.length < SHORTEST_KEY) {
    throw new Error(`REPLICATE_WEBHOOK_SECRET has fewer than ${SHORTEST_KEY} bytes`);
  }
  return key;
}

/** What is read of a request's headers: a `Headers`, or anything else with `get`. */
export interface HeaderSource {
  get(name: string): string | null;
}

/**
 * Check the signature over the bytes as they came; returns the webhook-id.
 *
 * @param body the request's body, not decoded.
 * @param keys from `signingKeys`.
 * @param now seconds since the epoch.
 * @throws MissingHeaders, WebhookRejected: and nothing else, whatever the request holds.
 */
export function verify(
  body: Uint8Array,
  headers: HeaderSource,
  keys: readonly Buffer[],
  now: number,
): string {
  const eventId = required(headers, "webhook-id");
  const timestamp = required(headers, "webhook-timestamp");
  const signatures = required(headers, "webhook-signature");
  if (!/^[\x20-\x7e]{1,255}$/.test(eventId)) {
    throw new WebhookRejected("the webhook-id is not one");
  }
  if (!/^[0-9]{1,12}$/.test(timestamp)) {
    throw new WebhookRejected("the webhook-timestamp is not a number of seconds");
  }
  if (Math.abs(now - Number(timestamp)) > TOLERANCE) {
    throw new WebhookRejected("the webhook-timestamp is too far from now");
  }
  const wanted = keys.map((key) => {
    const hmac = createHmac("sha256", key).update(`${eventId}.${timestamp}.`).update(body);
    return Buffer.from(`v1,${hmac.digest("base64")}`);
  });
  // Whole entries are compared, so a wrong version, length or alphabet needs no case of its own.
  const entries = signatures.split(" ", MOST_SIGNATURES).map((entry) => Buffer.from(entry));
  const matches = entries.flatMap((entry) => wanted.map((each) => same(entry, each)));
  if (!matches.includes(true)) throw new WebhookRejected("no signature fits");
  return eventId;
}

function required(headers: HeaderSource, name: string): string {
  const value = headers.get(name);
  if (value === null) throw new MissingHeaders(`the header ${name} is missing`);
  return value;
}

/** In constant time; the length of a signature is no secret. */
function same(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

/** Fetching what Replicate made: from allow-listed hosts only, streamed and limited. */
import type { Settings } from "./settings.ts";

const REDIRECTS = 3;
/** For one file, in seconds: an output is gone after an hour, however slowly it comes. */
const MOST_SECONDS = 3600;
/** Without a byte, in seconds. */
const IDLE_SECONDS = 30;

/** The output will never be stored: too large, from a foreign host, or of another shape. */
export class OutputRefused extends Error {}

/** Replicate does not have the output any more. */
export class OutputExpired extends Error {}

/** The output could not be fetched now; it may work later. */
export class OutputUnavailable extends Error {}

/** Where outputs may come from: Replicate's delivery hosts, and the emulator's exact origin. */
export interface AllowedHosts {
  origin: string | null;
  token: string;
}

export function allowedHosts(settings: Settings): AllowedHosts {
  return { origin: settings.emulatorOrigin, token: settings.replicateApiToken };
}

export function isAllowed(url: string, allowed: AllowedHosts): boolean {
  if (!/^https?:\/\//i.test(url)) return false;
  const parts = URL.parse(url);
  if (parts === null || parts.username || parts.password) return false;
  if (parts.origin === allowed.origin) return true;
  const host = parts.hostname;
  const theirs = host === "replicate.delivery" || host.endsWith(".replicate.delivery");
  return theirs && parts.protocol === "https:" && parts.port === "";
}

/** A body as it comes, with the content type that was announced for it. */
export interface Fetched {
  announced: string;
  chunks: AsyncIterable<Uint8Array>;
}

/**
 * The body of an output.
 *
 * Redirects are followed by hand and checked again. No credentials are sent; only where an allowed
 * host itself answers 401 or 403, once more with the token.
 *
 * @throws OutputRefused, OutputExpired, OutputUnavailable: here, or while the chunks are read.
 */
export async function fetchOutput(
  url: string,
  allowed: AllowedHosts,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Fetched> {
  if (url.startsWith("data:")) return decoded(url, maxBytes);
  const ended = AbortSignal.any([signal, AbortSignal.timeout(MOST_SECONDS * 1000)]);
  const reply = await answer(url, allowed, ended);
  if ((reply.headers.get("content-encoding") ?? "identity") !== "identity") {
    throw await discarded(reply, "The output is compressed, which was not asked for.");
  }
  const length = reply.headers.get("content-length") ?? "";
  if (/^\d+$/.test(length) && Number(length) > maxBytes) {
    throw await discarded(reply, `The output is larger than ${maxBytes} bytes.`);
  }
  const type = reply.headers.get("content-type") ?? "";
  return { announced: mediaType(type), chunks: limited(reply, maxBytes, signal) };
}

async function answer(start: string, allowed: AllowedHosts, signal: AbortSignal) {
  // Decompressing could make a few bytes fill the memory, so nothing compressed is asked for.
  const plain = { "Accept-Encoding": "identity" };
  let url = start;
  let headers: Record<string, string> = plain;
  for (let hops = 0; ; ) {
    if (!isAllowed(url, allowed)) {
      throw new OutputRefused(`The output is not on a host of Replicate's: ${url.slice(0, 200)}`);
    }
    const reply = await attempt(url, headers, signal);
    if (reply.status === 200) return reply;
    await reply.body?.cancel();
    const location = reply.headers.get("location");
    if (reply.status >= 300 && reply.status < 400 && location !== null) {
      hops += 1;
      if (hops > REDIRECTS) throw new OutputRefused("The output redirects without end.");
      url = URL.parse(location, url)?.href ?? location;
      headers = plain;
    } else if ([401, 403].includes(reply.status) && hops === 0 && headers === plain) {
      headers = { ...plain, Authorization: `Bearer ${allowed.token}` };
    } else if (reply.status === 404 || reply.status === 410) {
      throw new OutputExpired(url);
    } else {
      throw new OutputUnavailable(`HTTP ${reply.status} for an output`);
    }
  }
}

async function attempt(url: string, headers: Record<string, string>, signal: AbortSignal) {
  try {
    return await fetch(url, { headers, redirect: "manual", cache: "no-store", signal });
  } catch (error) {
    throw unavailable(error, signal);
  }
}

async function* limited(reply: Response, maxBytes: number, signal: AbortSignal) {
  const reader = (reply.body ?? new ReadableStream()).getReader();
  let size = 0;
  try {
    while (true) {
      const { done, value } = await withinTime(reader.read());
      if (done) return;
      size += value.byteLength;
      if (size > maxBytes) throw new OutputRefused(`The output is larger than ${maxBytes} bytes.`);
      yield value as Uint8Array;
    }
  } catch (error) {
    // Also a body that is shorter than announced: the protocol error says so.
    throw error instanceof OutputRefused ? error : unavailable(error, signal);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** The next chunk, unless it takes too long. */
async function withinTime<T>(read: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new OutputUnavailable("The output comes too slowly.")),
      IDLE_SECONDS * 1000,
    );
  });
  try {
    return await Promise.race([read, late]);
  } finally {
    clearTimeout(timer);
  }
}

function unavailable(error: unknown, signal: AbortSignal): Error {
  // Who stopped it knows why.
  if (signal.aborted && signal.reason instanceof Error) return signal.reason;
  if (error instanceof OutputUnavailable) return error;
  return new OutputUnavailable("The connection broke while fetching an output", { cause: error });
}

async function discarded(reply: Response, words: string): Promise<OutputRefused> {
  await reply.body?.cancel();
  return new OutputRefused(words);
}

function decoded(url: string, maxBytes: number): Fetched {
  const comma = url.indexOf(",");
  const [type = "", ...parameters] = url.slice("data:".length, comma).split(";");
  const text = unescaped(url.slice(comma + 1));
  const isBase64 = parameters.includes("base64");
  const content = isBase64 ? Buffer.from(text.toString("latin1"), "base64") : text;
  if (isBase64 && content.toString("base64") !== text.toString("latin1")) {
    throw new OutputRefused("A data: URI that is not base64.");
  }
  if (content.length > maxBytes) {
    throw new OutputRefused(`The output is larger than ${maxBytes} bytes.`);
  }
  return { announced: mediaType(type), chunks: only(content) };
}

/** The bytes of a percent-encoded text. */
function unescaped(text: string): Buffer {
  const bytes = Buffer.from(text).toString("latin1");
  const plain = bytes.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Buffer.from(plain, "latin1");
}

async function* only(content: Uint8Array) {
  yield content;
}

function mediaType(header: string): string {
  return (header.split(";", 1)[0] ?? "").trim().toLowerCase();
}

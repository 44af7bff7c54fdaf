/** What every request passes: its size, that another site's page did not send it, and its errors. */
import "server-only";
import { Readable } from "node:stream";
import type { NextRequest } from "next/server";
import { clientOf } from "./addresses.ts";
import { app } from "./app.ts";
import { CONNECTED } from "./connection.ts";
import { log } from "./log.ts";
import { notFound, Problem } from "./problems.ts";
import { StorageError } from "./storage.ts";

const BODY_MAX_BYTES = 2 * 2 ** 20;
/** What is read of a body that is refused, before the connection is cut. */
const DRAINED_BYTES = 64 * 2 ** 20;
const METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] as const;

type Method = (typeof METHODS)[number];
type Params = Record<string, string>;
type Context = { params: Promise<Params> };
type Handler = (request: NextRequest, context: Context) => Promise<Response>;

export interface Options {
  /** The most bytes that a body may have. */
  maxBytes?: () => Promise<number> | number;
  /** Whether the request is signed, so that no browser can be made to send it. */
  signed?: boolean;
}

/** A body that is sent as it comes. */
export function streamed(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const bytes = Readable.from(chunks, { objectMode: false });
  return Readable.toWeb(bytes) as ReadableStream<Uint8Array>;
}

/** The handlers of a route, guarded; every method that is not given answers 405. */
export function route(
  given: Partial<Record<Method, (request: NextRequest, params: Params) => Promise<Response>>>,
  { maxBytes = () => BODY_MAX_BYTES, signed = false }: Options = {},
): Record<Method, Handler> {
  const allow = Object.keys(given).join(", ");
  const handlers = METHODS.map((method): [Method, Handler] => {
    const handle = given[method] ?? (method === "HEAD" ? given.GET : undefined);
    return [
      method,
      async (request, context) => {
        try {
          if (new URL(request.url).pathname.endsWith("/")) throw notFound();
          if (!handle) {
            const words = `It takes ${allow}.`;
            throw new Problem(405, "Method not allowed", words, { headers: { Allow: allow } });
          }
          if (!["GET", "HEAD"].includes(method)) {
            checkSize(request, await maxBytes());
            if (!signed) await checkSite(request);
          }
          return notKept(await handle(request, await context.params));
        } catch (error) {
          await drain(request);
          return problemResponse(error, request);
        }
      },
    ];
  });
  return Object.fromEntries(handlers) as Record<Method, Handler>;
}

/** The answer, not to be kept by anyone unless it says so itself. */
function notKept(response: Response): Response {
  if (!response.headers.has("cache-control")) response.headers.set("Cache-Control", "no-store");
  return response;
}

export function problemResponse(error: unknown, request: Request): Response {
  const problem = asProblem(error, request);
  return Response.json(problem.asJson(), {
    status: problem.status,
    headers: {
      ...problem.headers,
      "Cache-Control": "no-store",
      "Content-Type": "application/problem+json",
    },
  });
}

function asProblem(error: unknown, { method, url }: Request): Problem {
  if (error instanceof Problem) return error;
  const path = new URL(url).pathname;
  if (error instanceof StorageError) {
    log.error({ method, path, reason: error.message }, "the storage cannot be reached");
    return new Problem(503, "The storage cannot be reached", "Try again later.");
  }
  log.error({ err: error, method, path }, "request failed");
  return new Problem(500, "Server error", "The fault is ours, and logged.");
}

/**
 * The whole body, at most so many bytes.
 *
 * @throws Problem 413.
 */
export async function readBody(request: Request, most = BODY_MAX_BYTES): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(limitedBody(request, most)));
}

/** The body as it comes; throws Problem 413 where it is longer than that. */
export async function* limitedBody(request: Request, most: number): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.byteLength;
    if (size <= most) yield chunk;
    // Read to its end, as in `drain`.
    if (size > most + DRAINED_BYTES) break;
  }
  if (size > most) throw tooLarge(most);
}

/** Read what was not read: a client that is cut off while it sends does not see the answer. */
async function drain(request: Request): Promise<void> {
  if (request.body === null || request.bodyUsed) return;
  try {
    let size = 0;
    for await (const chunk of request.body) {
      size += chunk.byteLength;
      if (size > DRAINED_BYTES) return;
    }
  } catch {
    return; // it has gone
  }
}

function checkSize(request: Request, most: number): void {
  const announced = request.headers.get("content-length") ?? "0";
  if (/^\d+$/.test(announced) && Number(announced) > most) throw tooLarge(most);
}

export function tooLarge(most: number): Problem {
  return new Problem(413, "Too large", `The body may have at most ${most} bytes.`);
}

async function checkSite({ headers }: Request): Promise<void> {
  const site = headers.get("sec-fetch-site");
  const origin = headers.get("origin");
  const { publicUrl } = (await app()).settings;
  const own = [headers.get("host"), URL.parse(publicUrl)?.host].filter(Boolean);
  const foreign = origin !== null && !own.includes(URL.parse(origin)?.host);
  if (foreign || site === "cross-site" || site === "same-site") {
    throw new Problem(403, "Cross-site request", "This may be sent from its own site only.");
  }
  if (isJson(headers) || origin !== null || site === "same-origin" || site === "none") return;
  const words = "Send Content-Type: application/json, or the Origin header.";
  throw new Problem(403, "Not known to be same-site", words);
}

export function isJson(headers: Headers): boolean {
  return (headers.get("content-type") ?? "").split(";", 1)[0]?.trim() === "application/json";
}

/** Where the request came from. */
export async function addressOf({ headers }: Request): Promise<string> {
  const { settings } = await app();
  const forwarded = headers.get("x-forwarded-for") ?? "";
  // Vercel's own proxy names the client there, and nobody else.
  if (process.env.VERCEL) return forwarded.split(",")[0]?.trim() ?? "unknown";
  return clientOf(headers.get(CONNECTED) ?? "unknown", forwarded, settings.proxies);
}

/** One number of the query; throws Problem 422 where it is not within the bounds. */
export function queryNumber(
  request: NextRequest,
  name: string,
  { least, most, otherwise }: { least: number; most: number; otherwise: number },
): number {
  const text = request.nextUrl.searchParams.get(name);
  if (text === null) return otherwise;
  const value = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  const detail = `must be a whole number from ${least} to ${most}`;
  throw new Problem(422, "Invalid request", `${name}: ${detail}`, {
    errors: [{ field: name, detail }],
  });
}

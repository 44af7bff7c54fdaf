/**
 * The only door to Replicate: nothing else imports its SDK.
 *
 * A create is sent once and never repeated blindly, since Replicate knows no idempotency key and a
 * second one bills again; every create carries `Cancel-After`, so that a time-out ends the bill.
 */
import "server-only";
import Replicate from "replicate";
import type { Row } from "./prediction.ts";
import type { Settings } from "./settings.ts";
import { parseRemote, type Remote } from "./state.ts";

const TIMEOUT = 15;
const UPLOAD_TIMEOUT = 150;
const PAGES = 20;

/** Replicate said no for good; the message is for the person who asked. */
export class Refused extends Error {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

/** Too many requests (429): nothing was created; `retryAfter` in seconds. */
export class Throttled extends Error {
  readonly retryAfter: number;

  constructor(retryAfter: number) {
    super(`throttled, retry after ${retryAfter} s`);
    this.retryAfter = retryAfter;
  }
}

/** The request never reached Replicate: it may be sent again. */
export class NotSent extends Error {}

/** The request may have reached Replicate: whether it took effect is unknown. */
export class NoAnswer extends Error {}

export type GatewayError = Refused | Throttled | NotSent | NoAnswer;

export function isGatewayError(error: unknown): error is GatewayError {
  return [Refused, Throttled, NotSent, NoAnswer].some((kind) => error instanceof kind);
}

interface List {
  results?: unknown[];
  next?: string | null;
}

interface Call {
  method?: "GET" | "POST";
  data?: object;
  headers?: Record<string, string>;
  timeout?: number;
}

/** Replicate's API, as far as a prediction's life needs it. Every method throws a `GatewayError`. */
export class Gateway {
  readonly #settings: Settings;
  readonly #client: Replicate;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#client = new Replicate({
      auth: settings.replicateApiToken,
      baseUrl: settings.replicateBaseUrl,
      useFileOutput: false, // plain URLs: a FileOutput is no JSON
      fetch: sentOnce(),
    });
  }

  /** Create the prediction, once; `wait` up to so many seconds for its end. */
  async create(row: Row, input: Record<string, unknown>, wait = 0): Promise<Remote> {
    const url = this.webhookUrl(row);
    const webhook = url ? { webhook: url, webhook_events_filter: ["start", "completed"] } : {};
    const headers: Record<string, string> = {
      "Cancel-After": `${this.#settings.cancelAfterSeconds}s`,
    };
    if (wait > 0) headers.Prefer = `wait=${wait}`;
    const [path, version] = row.deployment
      ? [`/deployments/${row.deployment}/predictions`, {}]
      : ["/predictions", { version: row.ref }];
    const data = { ...version, input, ...webhook };
    return parsed(
      await this.#call(path, { method: "POST", data, headers, timeout: TIMEOUT + wait }),
    );
  }

  /** What Replicate says about the prediction now. */
  async get(replicateId: string): Promise<Remote> {
    return parsed(await this.#call(`/predictions/${replicateId}`));
  }

  /** Ask for the cancellation, which may be repeated. */
  async cancel(replicateId: string): Promise<Remote> {
    return parsed(await this.#call(`/predictions/${replicateId}/cancel`, { method: "POST" }));
  }

  /** The prediction whose webhook names the row, among those created when it was sent. */
  async find(row: Row): Promise<Remote | null> {
    const sent = row.sent_at ?? row.created_at;
    const span = { created_after: instant(sent - 60), created_before: instant(sent + 180) };
    let query = `?${new URLSearchParams(span)}`;
    for (let page = 0; page < PAGES && query !== ""; page += 1) {
      const found = (await this.#call(`/predictions${query}`)) as List;
      for (const item of found.results ?? []) {
        const remote = remoteOrNull(item);
        if (remote?.rowId === row.id) return await this.get(remote.id);
      }
      // Only its query: the token goes to the API's own host and to no other.
      query = URL.parse(found.next ?? "")?.search ?? "";
    }
    return null;
  }

  /** Hand Replicate a file that it cannot fetch from us; returns its URL (24 h). */
  async upload(name: string, type: string, chunks: AsyncIterable<Uint8Array>): Promise<string> {
    const form = new FormData();
    const parts = (await Array.fromAsync(chunks)) as Uint8Array<ArrayBuffer>[];
    form.append("content", new File(parts, name, { type }));
    const options = { method: "POST", data: form, timeout: UPLOAD_TIMEOUT } as const;
    try {
      const file = (await this.#call("/files", options)) as { urls: { get: string } };
      return file.urls.get;
    } catch (error) {
      // An upload costs nothing: unlike a create it may be repeated.
      throw error instanceof NoAnswer ? new NotSent(error.message) : error;
    }
  }

  /** Replicate's record of a model. */
  async describe(ownerName: string): Promise<Record<string, unknown>> {
    return (await this.#call(`/models/${ownerName}`)) as Record<string, unknown>;
  }

  /** The secret that signs this account's webhooks. */
  async webhookSecret(): Promise<string> {
    return ((await this.#call("/webhooks/default/secret")) as { key: string }).key;
  }

  /** Start a training, once, of `owner/name:<version>`. */
  async train(ref: string, destination: string, input: Record<string, unknown>) {
    const [model, version] = ref.split(":");
    const path = `/models/${model}/versions/${version}/trainings`;
    const data = { destination, input };
    return (await this.#call(path, { method: "POST", data })) as Record<string, unknown>;
  }

  /** Replicate's record of a training. */
  async training(id: string): Promise<Record<string, unknown>> {
    return (await this.#call(`/trainings/${id}`)) as Record<string, unknown>;
  }

  /** Where Replicate reports the row; null where it cannot reach us. */
  webhookUrl(row: Row): string | null {
    const base = this.#settings.publicUrl;
    return base ? `${base}/api/webhooks/replicate?prediction=${row.id}` : null;
  }

  async #call(path: string, { timeout = TIMEOUT, ...options }: Call = {}): Promise<unknown> {
    const signal = AbortSignal.timeout(timeout * 1000);
    try {
      const reply = await this.#client.request(path, { ...options, signal });
      const body = (await reply.json()) as unknown;
      if (typeof body !== "object" || body === null) throw new TypeError(`${path} is no object`);
      return body;
    } catch (error) {
      throw await explained(error);
    }
  }
}

/**
 * A `fetch` that sends each request once: the SDK repeats a POST six times on 429 and on a broken
 * connection, with the same options object, and gets the first answer again.
 */
export function sentOnce(send: typeof fetch = fetch): typeof fetch {
  const sent = new WeakMap<object, Promise<Response>>();
  return (url, init = {}) => {
    const answer = sent.get(init) ?? send(url, { ...init, cache: "no-store", redirect: "error" });
    sent.set(init, answer);
    return answer;
  };
}

function instant(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`;
}

function parsed(data: unknown): Remote {
  try {
    return parseRemote(data);
  } catch (error) {
    throw new NoAnswer(String(error));
  }
}

function remoteOrNull(data: unknown): Remote | null {
  try {
    return parseRemote(data);
  } catch {
    return null;
  }
}

/** Connections that never opened sent nothing; any other break may have. */
const UNSENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"]);

async function explained(error: unknown): Promise<GatewayError> {
  if (error instanceof Error && "response" in error && error.response instanceof Response) {
    return refusal(error.response, error.message);
  }
  const cause = error instanceof Error ? error.cause : undefined;
  const code = typeof cause === "object" && cause !== null && "code" in cause ? cause.code : "";
  return UNSENT.has(String(code))
    ? new NotSent("Replicate could not be reached")
    : new NoAnswer("the connection to Replicate broke before its answer");
}

const HINTS: Record<number, string> = {
  401: " Check REPLICATE_API_TOKEN.",
  402: " Nothing was run and nothing will be tried again: see replicate.com/account/billing.",
};

/** The SDK has read the body already: it stands at the end of its message. */
function refusal(response: Response, message: string): GatewayError {
  const { status } = response;
  const body = problemIn(message);
  if (status === 429) {
    const after = Number(body.retry_after ?? response.headers.get("retry-after"));
    return new Throttled(Number.isFinite(after) && after > 0 ? Math.max(1, after) : 10);
  }
  const title = String(body.title ?? `HTTP ${status}`);
  const detail = String(body.detail ?? response.statusText).trim();
  if (status >= 500 || status === 408) return new NoAnswer(`${title}: ${detail}`);
  return new Refused(`Replicate refused: ${title}. ${detail}${HINTS[status] ?? ""}`, status);
}

function problemIn(message: string): Record<string, unknown> {
  try {
    const found = JSON.parse(/\{[\s\S]*\}/.exec(message)?.[0] ?? "{}") as unknown;
    return typeof found === "object" && found !== null ? { ...found } : {};
  } catch {
    return {};
  }
}

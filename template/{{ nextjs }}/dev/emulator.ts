/**
 * A Replicate of your own: the HTTP API, served from this project's pinned models.
 *
 * `node dev/emulator.ts` needs no account and spends nothing. Its answers, errors, webhooks and
 * timings have Replicate's form; its pictures, sounds and texts are made up. Everything lives in
 * memory. Paths under `/_emulator` are not Replicate's: tests use them to change the settings, to
 * order faults (see FAULTS), and to see what was asked and what was sent.
 */
import { createHmac, hash, randomBytes, randomInt } from "node:crypto";
import { realpathSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { crc32, deflateSync } from "node:zlib";
import { type InputField, type Model, type OutputKind, REGISTRY } from "../src/lib/models.ts";

type Json = Record<string, unknown>;
type Status = "starting" | "processing" | "succeeded" | "failed" | "canceled" | "aborted";
type Field = Pick<InputField, "name" | "type" | "required"> & Partial<InputField>;
type Invalid = [type: string, field: string, description: string];

const KEY = Buffer.from("the emulator's own secret");
export const WEBHOOK_SECRET = `whsec_${KEY.toString("base64")}`;
const MODELS = new Map(Object.values(REGISTRY).map((model) => [model.ownerName, model]));
const ACCOUNT = { type: "organization", username: "emulator", name: "The emulator" };
const HARDWARE = [
  { name: "CPU", sku: "cpu" },
  { name: "Nvidia T4 GPU", sku: "gpu-t4" },
];
const EVENTS = ["start", "output", "logs", "completed"];
const NOT_FOUND = "The requested resource could not be found.";
const FAULTS = {
  create_reset: "the prediction is created, then the connection dies before the answer",
  create_500: "nothing is created, unless `accepted` is true",
  create_402: "a billing error; `title` says which",
  create_422: "an input error, whatever the input",
  create_429: "throttled for `retry_after` seconds",
  version_422: "the version does not exist or is not permitted",
  abort: "the prediction is aborted before it starts",
  hang: "the prediction runs until it is canceled or its Cancel-After has passed",
  fail: "the prediction fails with `error`",
  output: "the prediction's output is `output`, any JSON",
  file_404: "the output file is gone",
  file_401: "the output file wants the API token",
  file_redirect: "the output file redirects to `url`",
  file_body: "the output file is `body`, a text of type `content_type`",
  file_short: "the output file ends before its announced length",
  file_endless: "the output file never ends",
};
type FaultName = keyof typeof FAULTS;

/** What `POST /_emulator/settings` changes; times in seconds, sizes in bytes. */
const SETTINGS = {
  cold_start_seconds: 0.2, // community models only: official ones are always warm
  run_seconds: 0.3,
  output_bytes: 0, // output files and texts are padded to at least this size
  output_ttl_seconds: 3600, // then inputs, outputs and logs are gone
  upload_ttl_seconds: 24 * 3600,
  max_upload_bytes: 100_000_000,
  data_uris: false, // output files as data: URIs, which the SDKs make FileOutputs of
  wait_says_processing: false, // Replicate may say so of a finished one that was waited for
  reroute_version: null as string | null, // what runs instead of the version that was asked for
  official_latest_version: true, // some official models show none
  list_webhook_field: true,
  body_webhook_field: true,
  webhook_delay: 0,
  webhook_drop: 0, // share of events that are never sent, 0..1
  webhook_repeat: 0, // how many times more each event is sent
  webhook_tries: 7, // of a `completed` event; the pauses double: 1, 2, … 32 s
  webhook_retry_seconds: 1,
  webhook_on_aborted: true, // not documented: a client must bear both
  creates_per_minute: null as number | null, // null: no limit
  creates_burst: 1,
  minimum_cancel_after: 5,
  page_size: 100,
};
export type Settings = typeof SETTINGS;

/** A fault on order, for the next `times` occasions (null: until it is removed). */
interface Fault {
  fault: FaultName;
  times: number | null;
  model: string | null;
  params: Json;
}

/** An output file, padded with zeros to `size`, or an upload of `POST /v1/files`. */
interface StoredFile {
  name: string;
  contentType: string;
  body: Buffer;
  size: number;
  model: string | null;
  metadata: unknown;
  created: number;
}

/** A prediction, or a training (`model` is null); times are seconds since the epoch. */
interface Prediction {
  id: string;
  base: string;
  name: string;
  version: string;
  input: Json;
  model: Model | null;
  deployment: string | null;
  /** Of a training. */
  destination: string;
  webhook: string | null;
  events: string[];
  created: number;
  deadline: number | null;
  status: Status;
  output: unknown;
  error: string | null;
  logs: string;
  started: number | null;
  completed: number | null;
  /** When the last `output` event was sent. */
  told: number;
  /** Those that were due when it was created. */
  faults: Map<FaultName, Json>;
  changed: PromiseWithResolvers<void>;
  stopped: AbortController;
}

/** A request with what the handlers need of it; `base` ends in a slash. */
interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  url: URL;
  base: string;
  path: Record<string, string>;
}

/** An error in Replicate's form. */
class Problem extends Error {
  body: Json;
  status: number;

  constructor(status: number, detail: string, title?: string, more: Json = {}) {
    super(detail);
    this.status = status;
    this.body = { ...(title ? { title } : {}), detail, status, ...more };
  }
}

/** The 422 of an input or a body that does not fit its schema. */
function invalid(errors: Invalid[]): Problem {
  const lines = errors.map(([, field, description]) => `- ${field}: ${description}\n`);
  const fields = errors.map(([type, field, description]) => ({ type, field, description }));
  const title = "Input validation failed";
  return new Problem(422, lines.join(""), title, { invalid_fields: fields });
}

/** The 422 of a version that is unknown, not ours, or an official model's. */
function invalidVersion(): Problem {
  const why =
    "The specified version does not exist (or perhaps you don't have permission to use it?)";
  return new Problem(422, why, "Invalid version or not permitted");
}

/** The 429, with `retry_after` in whole seconds. */
function throttled(seconds: number): Problem {
  const wait = Math.ceil(seconds);
  const detail = `Request was throttled. Your rate limit resets in ~${wait}s.`;
  return new Problem(429, detail, undefined, { retry_after: wait });
}

function newId(): string {
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  return Array.from(randomBytes(26), (byte) => letters[byte % 32]).join("");
}

/** Seconds since the epoch. */
function now(): number {
  return Date.now() / 1000;
}

/** The seconds between two times, to the millisecond. */
function lasted(from: number, to: number): number {
  return Math.round((to - from) * 1000) / 1000;
}

function rfc3339(seconds: number): string {
  return new Date(Math.round(seconds * 1000)).toISOString().replace("Z", "000Z");
}

/** Seconds since the epoch of an ISO 8601 time; throws Problem (422) if it is none. */
function instant(text: string | null, otherwise: number): number {
  if (!text) return otherwise;
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) throw new Problem(422, `Not an ISO 8601 date-time: ${text}`);
  return time / 1000;
}

/** Seconds of a Cancel-After such as `30`, `90s` or `2h30m`; 0 if it is none. */
function duration(text: string): number {
  const parts = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?$/.exec(text) ?? [];
  const [, hours, minutes, seconds] = parts.map((part) => Number(part ?? 0));
  return (hours ?? 0) * 3600 + (minutes ?? 0) * 60 + (seconds ?? 0);
}

/** The `webhook-signature` header, over `id.timestamp.body`. */
function sign(eventId: string, timestamp: string, body: Buffer): string {
  const mac = createHmac("sha256", KEY).update(`${eventId}.${timestamp}.`).update(body);
  return `v1,${mac.digest("base64")}`;
}

function serverSent(event: string, data: string, eventId: string): string {
  const lines = data.split("\n").map((line) => `data: ${line}\n`);
  return `event: ${event}\nid: ${eventId}\n${lines.join("")}\n`;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer<ArrayBuffer>> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The request's body; throws Problem (400) if it is not a JSON object. */
async function jsonObject(request: IncomingMessage): Promise<Json> {
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await bodyOf(request)));
  } catch {}
  if (isObject(body)) return body;
  throw new Problem(400, "The request body must be a JSON object", "Bad request");
}

function answer(
  response: ServerResponse,
  body: unknown,
  status = 200,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

function page(results: unknown[], next: string | null = null) {
  return { next, previous: null, results };
}

/** One of many by its name; throws Problem (404) if there is none. */
function find<T>(among: Map<string, T>, key: string): T {
  const found = among.get(key);
  if (found === undefined) throw new Problem(404, NOT_FOUND);
  return found;
}

// --- schemas: what a pin says, in Replicate's words ---

const FILE = { type: "string", format: "uri" };
const ITERATOR = { "x-cog-array-type": "iterator", "x-cog-array-display": "concatenate" };
const OUTPUTS: Record<OutputKind, Json> = {
  file: FILE,
  files: { type: "array", items: FILE },
  text: { type: "string" },
  "text-stream": { type: "array", items: { type: "string" }, ...ITERATOR },
  json: { type: "object" },
};
const BODY: Field[] = [
  { name: "input", type: "object", required: true },
  { name: "webhook", type: "string", required: false },
  { name: "webhook_events_filter", type: "array", required: false },
  { name: "stream", type: "boolean", required: false },
];
const VERSION: Field = { name: "version", type: "string", required: true };
const EVENT: Field = { name: "0", type: "string", required: true, enum: EVENTS };

function schemaType(field: Field): string {
  return field.type === "file" ? "string" : field.type;
}

/** A version with its `openapi_schema`; choices stand apart, as cog has them. */
function versionView(model: Model) {
  const schemas: Json = {};
  const properties: Json = {};
  for (const [order, field] of model.fields.entries()) {
    const { name } = field;
    const type = schemaType(field);
    const words = name.split("_").map((word) => word.charAt(0).toUpperCase() + word.slice(1));
    let about: Json = { type, title: words.join(" "), "x-order": order };
    if (field.enum) {
      schemas[name] = { type, title: name, enum: field.enum };
      about = { allOf: [{ $ref: `#/components/schemas/${name}` }], "x-order": order };
    }
    if (field.type === "file") about.format = "uri";
    for (const key of ["default", "minimum", "maximum"] as const) {
      if (field[key] !== null) about[key] = field[key];
    }
    properties[name] = about;
  }
  const required = model.fields.filter((field) => field.required).map((field) => field.name);
  schemas.Input = {
    type: "object",
    title: "Input",
    properties,
    ...(required.length ? { required } : {}),
  };
  schemas.Output = { ...OUTPUTS[model.output], title: "Output" };
  const info = { title: "Cog", version: "0.1.0" };
  return {
    // An official model shows a hash, too, but no prediction may name it.
    id: model.version ?? hash("sha256", model.ownerName),
    created_at: "2025-01-01T00:00:00.000000Z",
    cog_version: "0.13.0",
    openapi_schema: { openapi: "3.0.2", info, paths: {}, components: { schemas } },
  };
}

function jsonType(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return Number.isInteger(value) ? "integer" : typeof value; // to JSON, 1.0 is 1
}

/** What is wrong with an input (or the whole body), as Replicate's validator says it. */
function mismatches(fields: Field[], given: Json, where = ""): Invalid[] {
  return fields.flatMap((field) => {
    const wrong = mismatch(field, given, where);
    return wrong ? [wrong] : [];
  });
}

function mismatch(field: Field, given: Json, where: string): Invalid | null {
  const { name, minimum, maximum } = field;
  const at = where ? `${where}.${name}` : name;
  if (!Object.hasOwn(given, name)) {
    return field.required ? ["required", where || "(root)", `${name} is required`] : null;
  }
  const value = given[name] as string | number;
  const type = jsonType(value);
  const wanted = schemaType(field);
  if (type !== wanted && !(type === "integer" && wanted === "number")) {
    return ["invalid_type", at, `Invalid type. Expected: ${wanted}, given: ${type}`];
  }
  if (field.enum?.length && !field.enum.includes(value)) {
    const choices = field.enum.map((choice) => JSON.stringify(choice)).join(", ");
    return ["enum", at, `${at} must be one of the following: ${choices}`];
  }
  if (minimum != null && Number(value) < minimum) {
    return ["number_gte", at, `Must be greater than or equal to ${minimum}`];
  }
  if (maximum != null && Number(value) > maximum) {
    return ["number_lte", at, `Must be less than or equal to ${maximum}`];
  }
  if (field.type === "file" && !/^[a-zA-Z][\w+.-]*:/.test(String(value))) {
    return ["format", at, "Does not match format 'uri'"];
  }
  return null;
}

// --- outputs: real files, made from nothing but the input ---

/** The colour of a hue (whole turns), a saturation and a value, as three bytes. */
function rgb(hue: number, saturation: number, value: number): number[] {
  return [5, 3, 1].map((n) => {
    const k = (n + hue * 6) % 6;
    return 255 * value * (1 - saturation * Math.max(0, Math.min(k, 4 - k, 1)));
  });
}

/** A picture of soft waves in three neighbouring colours of the seed's choice. */
function png(seed: Buffer, width: number, height: number): Buffer {
  const [colour = 0, phase = 0] = seed;
  const corner = (n: number) => rgb(colour / 256 + (n % 3) * 0.12, 0.65, 0.95 - (n % 3) * 0.2);
  const palette = Buffer.alloc(3 * 256);
  for (let i = 0; i < 256; i++) {
    const part = Math.floor((i * 3) / 256);
    const to = corner(part + 1);
    corner(part).forEach((from, n) => {
      palette[3 * i + n] = Math.round(from + ((to[n] ?? from) - from) * ((i * 3) / 256 - part));
    });
  }
  // Each row is a slice of one long ramp: cheap even for hundreds of pictures a second.
  const ramp = Buffer.from(
    Array.from({ length: width + height + 128 }, (_, x) => Math.floor((x * 256) / (width + 128))),
  );
  const rows = Buffer.alloc(height * (width + 1));
  for (let y = 0; y < height; y++) {
    const shift = y + Math.round(64 + 63 * Math.sin(phase + (y * 6.28) / height));
    ramp.copy(rows, y * (width + 1) + 1, shift, shift + width);
  }
  const chunk = (kind: string, data: Buffer) => {
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    const body = Buffer.concat([Buffer.from(kind), data]);
    length.writeUInt32BE(data.length);
    check.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, check]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3], 8); // 8 bits a pixel, from the palette
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    chunk("IHDR", header),
    chunk("PLTE", palette),
    chunk("IDAT", deflateSync(rows, { level: 1 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/** One second of a soft tone whose pitch is the seed's choice. */
function wav(seed: Buffer): Buffer {
  const rate = 8000;
  const pitch = 220 * 2 ** (((seed[0] ?? 0) % 13) / 12);
  const sound = Buffer.alloc(44 + 2 * rate);
  sound.write("RIFF", 0);
  sound.writeUInt32LE(sound.length - 8, 4);
  sound.write("WAVEfmt ", 8);
  sound.writeUInt32LE(16, 16);
  sound.set([1, 0, 1, 0], 20); // PCM, one channel
  sound.writeUInt32LE(rate, 24);
  sound.writeUInt32LE(2 * rate, 28);
  sound.set([2, 0, 16, 0], 32); // bytes and bits of a sample
  sound.write("data", 36);
  sound.writeUInt32LE(2 * rate, 40);
  for (let i = 0; i < rate; i++) {
    const swell = Math.sin((Math.PI * i) / rate);
    const wave = Math.sin((2 * Math.PI * pitch * i) / rate);
    sound.writeInt16LE(Math.round(12000 * wave * swell), 44 + 2 * i);
  }
  return sound;
}

// 160 x 90 pixels of VP8
const FRAME = Buffer.from(
  "sAgAnQEqoABaAD85nMBdLysmJKCMEeAnCWVu3VkbH+f6AFdHQ5vUX5zTW+v31RpG6/k/fFoZAXgJl56334VggTzX" +
    "CTgD5VSU4U42WCwAAP7m0t1dEzGwNyH9rQCQqYDCtewNjpVgbPRB/mUQ6Z5uPIb2GG+GCYx6cP0I4yVNccankCL6" +
    "npUjoxk2dxHKMOK37E12ZfUj3NbhL1+kechsnbiGkbSvmLxLzk2JpTctvDcOxKkL2CXo+L2oNFRxHrvgFBVHwfQu" +
    "Onm8vCeYF/dX6e0A+PUAAA==",
  "base64",
);

/** Two seconds of a small, still film: one key frame, shown ten times. */
function webm(): Buffer {
  const element = (name: string, ...parts: Buffer[]) => {
    const body = Buffer.concat(parts);
    const size = Buffer.alloc(8);
    size.writeBigUInt64BE(BigInt(body.length) | (1n << 56n));
    return Buffer.concat([Buffer.from(name, "hex"), size, body]);
  };
  const number = (name: string, value: number) => {
    const four = Buffer.alloc(4);
    four.writeUInt32BE(value);
    return element(name, four);
  };
  const text = (name: string, value: string) => element(name, Buffer.from(value));
  const header = element("1A45DFA3", text("4282", "webm"), number("4287", 2), number("4285", 2));
  const length = Buffer.alloc(8);
  length.writeDoubleBE(2000);
  const info = element("1549A966", number("2AD7B1", 1_000_000), element("4489", length));
  const size = element("E0", number("B0", 160), number("BA", 90));
  const video = [number("D7", 1), number("73C5", 1), number("83", 1), text("86", "V_VP8"), size];
  const tracks = element("1654AE6B", element("AE", ...video));
  const blocks = Array.from({ length: 10 }, (_, n) => {
    const about = Buffer.from([0x81, 0, 0, 0x80]);
    about.writeInt16BE(n * 200, 1);
    return element("A3", about, FRAME);
  });
  const cluster = element("1F43B675", number("E7", 0), ...blocks);
  return Buffer.concat([header, element("18538067", info, tracks, cluster)]);
}

/** The whole state and what happens to it. */
class Emulator {
  settings: Settings;
  predictions = new Map<string, Prediction>(); // and trainings, oldest first
  outputs = new Map<string, StoredFile>();
  uploads = new Map<string, StoredFile>();
  deployments = new Map<string, ReturnType<Emulator["deploy"]>>();
  faults: Fault[] = [];
  requests: Json[] = [];
  deliveries: Json[] = [];
  allowance = 0;
  refilled = Number.NEGATIVE_INFINITY;
  routes = this.table();

  constructor(settings: Partial<Settings>) {
    this.settings = { ...SETTINGS, ...settings };
    const chosen = JSON.parse(process.env.MODEL_SETTINGS || "{}");
    for (const [key, model] of Object.entries(REGISTRY)) {
      if (chosen[key]?.deployment) this.deploy(chosen[key].deployment, model);
    }
  }

  /** Note the request, check the token, find the handler, and say what went wrong. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const base = `http://${request.headers.host ?? "localhost"}/`;
      const url = new URL(request.url ?? "/", base);
      const { authorization = "", ...headers } = request.headers;
      if (!url.pathname.startsWith("/_emulator/")) {
        const query = url.search.slice(1);
        this.keep(this.requests, { method: request.method, path: url.pathname, query, headers });
      }
      if (url.pathname.startsWith("/v1/") && !/^(Bearer|Token) r8_\S+$/.test(authorization)) {
        const why = "You did not pass a valid authentication token";
        throw new Problem(401, why, "Unauthenticated");
      }
      await this.route({ request, response, url, base, path: {} });
    } catch (error) {
      if (!(error instanceof Problem)) console.error(error);
      if (response.headersSent) {
        response.destroy();
        return;
      }
      const problem = error instanceof Problem ? error : new Problem(500, "Internal server error");
      const headers = { "content-type": "application/problem+json" };
      answer(response, problem.body, problem.status, headers);
    }
  }

  async route(call: Call): Promise<void> {
    const method = call.request.method === "HEAD" ? "GET" : (call.request.method ?? "GET");
    let known = false;
    for (const [methods, pattern, handler] of this.routes) {
      const match = pattern.exec(call.url.pathname);
      if (match && methods.includes(method)) {
        for (const [name, value] of Object.entries(match.groups ?? {})) {
          call.path[name] = decodeURIComponent(value);
        }
        return handler(call);
      }
      known ||= match !== null;
    }
    throw known ? new Problem(405, "Method Not Allowed") : new Problem(404, "Not Found");
  }

  /** Add to a record, of which the last 10,000 are kept. */
  keep(record: Json[], entry: Json): void {
    record.push(entry);
    if (record.length > 10_000) record.shift();
  }

  /** The parameters of a fault that is due for this model, and count it. */
  fault(name: FaultName, model: string | null): Json | null {
    const due = this.faults.find(
      (one) => one.fault === name && (one.model === null || one.model === model),
    );
    if (due === undefined) return null;
    if (due.times !== null) {
      due.times -= 1;
      if (due.times <= 0) this.faults = this.faults.filter((one) => one !== due);
    }
    return due.params;
  }

  // --- the life of a prediction ---

  /** The prediction as every answer and webhook shows it. */
  view(p: Prediction, webhook = true): Json {
    const gone = p.completed !== null && now() > p.completed + this.settings.output_ttl_seconds;
    const at = `${p.base}v1/${kindOf(p)}/${p.id}`;
    const urls: Json = { get: at, cancel: `${at}/cancel`, web: `https://replicate.com/p/${p.id}` };
    if (streams(p)) urls.stream = `${p.base}_stream/${p.id}`;
    const body: Json = {
      id: p.id,
      model: p.name,
      version: p.version,
      status: p.status,
      input: gone ? {} : p.input,
      output: gone ? null : p.output,
      logs: gone ? "" : p.logs,
      error: p.error,
      data_removed: gone,
      source: "api",
      urls,
      created_at: rfc3339(p.created),
    };
    if (p.started !== null) body.started_at = rfc3339(p.started);
    if (p.completed !== null) body.completed_at = rfc3339(p.completed);
    if (p.deadline !== null) body.deadline = rfc3339(p.deadline);
    if (p.completed !== null) {
      const ran = p.started === null ? {} : { predict_time: lasted(p.started, p.completed) };
      body.metrics = { total_time: lasted(p.created, p.completed), ...ran };
    }
    if (p.deployment) body.deployment = p.deployment;
    if (p.webhook && webhook) body.webhook = p.webhook;
    return body;
  }

  /** Cold start, run, result; a cancel or the deadline may end it at any point. */
  async run(p: Prediction): Promise<void> {
    const { signal } = p.stopped;
    const pause = (seconds: number) => sleep(seconds * 1000, undefined, { signal });
    const { cold_start_seconds, run_seconds } = this.settings;
    if (p.model?.kind === "community" && !p.deployment) await pause(cold_start_seconds);
    if (p.faults.has("abort")) return this.finish(p, "aborted");
    p.status = "processing";
    p.started = now();
    p.logs = "Running on the emulator\n";
    touch(p);
    this.notify(p, "start");
    this.notify(p, "logs");
    if (p.faults.has("hang")) return;
    const problem = await this.inputFileError(p);
    if (problem !== null) return this.finish(p, "failed", problem);
    const pieces = streams(p) ? this.pieces(p) : [""];
    for (const piece of pieces) {
      await pause(run_seconds / pieces.length);
      if (!streams(p)) continue;
      p.output = [...((p.output as string[] | null) ?? []), piece];
      touch(p);
      if (now() - p.told >= 0.5) {
        p.told = now();
        this.notify(p, "output");
      }
    }
    const failure = p.faults.get("fail");
    if (failure) {
      return this.finish(p, "failed", String(failure.error ?? "The model raised an error"));
    }
    if (!streams(p)) p.output = this.makeOutput(p);
    const ordered = p.faults.get("output");
    if (ordered) p.output = ordered.output ?? null;
    this.notify(p, "output");
    this.finish(p, "succeeded");
  }

  /** End a prediction, once: the first end counts. */
  finish(p: Prediction, status: Status, error: string | null = null): void {
    if (p.completed !== null) return;
    p.status = status;
    p.error = error;
    p.completed = now();
    touch(p);
    this.notify(p, "completed");
  }

  /** Cancel a prediction, or end it at its deadline: `aborted` if it had not started. */
  stop(p: Prediction, byDeadline = false): void {
    this.finish(p, byDeadline && p.started === null ? "aborted" : "canceled");
    p.stopped.abort();
  }

  /** Fetch the input's files as Replicate would; those of other machines are believed. */
  async inputFileError(p: Prediction): Promise<string | null> {
    const files = p.model?.fields.filter((field) => field.type === "file") ?? [];
    for (const url of files.map((field) => String(p.input[field.name] ?? ""))) {
      if (!/^https?:\/\/(127\.0\.0\.1|localhost|\[::1\])[:/]/.test(url)) continue;
      let status = 404;
      if (url.startsWith(`${p.base}v1/files/`)) {
        if (this.uploads.has(url.slice(url.lastIndexOf("/") + 1))) status = 200;
      } else {
        try {
          const times = [p.stopped.signal, AbortSignal.timeout(10_000)];
          const file = await fetch(url, { signal: AbortSignal.any(times) });
          await file.arrayBuffer();
          status = file.status;
        } catch (error) {
          p.stopped.signal.throwIfAborted();
          return `Failed to download ${url}: ${error}`;
        }
      }
      if (status !== 200) return `Failed to download ${url}: HTTP ${status}`;
    }
    return null;
  }

  /** An output of the model's kind, made from the input. */
  makeOutput(p: Prediction): unknown {
    if (p.model === null) {
      const version = `${p.destination}:${randomBytes(32).toString("hex")}`;
      return { version, weights: this.newFile(p, 0, "weights") };
    }
    if (p.model.output === "files") {
      const count = Math.trunc(Number(p.input.num_outputs ?? 1));
      return Array.from({ length: count }, (_, index) => this.newFile(p, index));
    }
    if (p.model.output === "file") return this.newFile(p, 0);
    const text = this.pieces(p).join("");
    if (p.model.output === "text") return text;
    return {
      detected_language: "english",
      transcription: text,
      segments: [{ id: 0, start: 0, end: 1, text }],
      txt_file: this.newFile(p, 0, text),
      srt_file: null,
    };
  }

  /** The answer in at most 100 pieces, at least `output_bytes` long. */
  pieces(p: Prediction): string[] {
    const asked = String(p.input.prompt || p.input.text || "").trim();
    let text = asked ? `You asked: ${asked}\n\n` : "";
    text += `This answer comes from the emulator, not from ${p.name}. It has the length and the`;
    text += " pace of a short reply, it costs nothing, and no model has read a word of yours.";
    const missing = this.settings.output_bytes - text.length;
    text += " padding".repeat(Math.max(0, Math.ceil(missing / 8)));
    const words = text.match(/\s*\S+/g) ?? [];
    const step = Math.ceil(words.length / 100);
    return Array.from({ length: Math.ceil(words.length / step) }, (_, n) =>
      words.slice(n * step, (n + 1) * step).join(""),
    );
  }

  /** Store an output file and return its URL. */
  newFile(p: Prediction, index: number, text?: string): string {
    const seed = hash("sha256", JSON.stringify([p.input, index]), "buffer");
    const about = `${p.name} ${p.input.output_format ?? ""}`;
    let [name, contentType, body]: [string, string, Buffer] = [
      "out.txt",
      "text/plain",
      Buffer.from(text ?? ""),
    ];
    if (text !== undefined) {
      // as it is
    } else if (/music|audio|sound|speech|voice|tts|bark|wav|mp3/.test(about)) {
      [name, contentType, body] = ["out.wav", "audio/wav", wav(seed)];
    } else if (/video|animat|mp4|webm/.test(about)) {
      [name, contentType, body] = ["out.webm", "video/webm", webm()];
    } else {
      const ratio = /^([1-9]\d?):([1-9]\d?)$/.exec(String(p.input.aspect_ratio));
      const [wide, high] = ratio ? [Number(ratio[1]), Number(ratio[2])] : [1, 1];
      const longest = Math.max(wide, high);
      [name, contentType] = [`out-${index}.png`, "image/png"];
      body = png(seed, Math.floor((512 * wide) / longest), Math.floor((512 * high) / longest));
    }
    if (this.settings.data_uris) return `data:${contentType};base64,${body.toString("base64")}`;
    const token = newId();
    const size = Math.max(body.length, this.settings.output_bytes);
    const file = { name, contentType, body, size, model: p.name, metadata: {}, created: now() };
    this.outputs.set(token, file);
    return `${p.base}_files/${token}/${name}`;
  }

  // --- webhooks ---

  /** Send an event, unless nobody asked for it, or it is lost on order. */
  notify(p: Prediction, event: string): void {
    const silent = p.status === "aborted" && !this.settings.webhook_on_aborted;
    if (!p.webhook || !p.events.includes(event) || silent) return;
    if (randomInt(100) >= 100 * this.settings.webhook_drop) {
      const body = Buffer.from(JSON.stringify(this.view(p, this.settings.body_webhook_field)));
      void this.deliver(p.webhook, event, body);
    }
  }

  /** Post until a 2xx answers; only `completed` is tried again, with the same id. */
  async deliver(url: string, event: string, body: Buffer<ArrayBuffer>): Promise<void> {
    const settings = this.settings;
    const id = `msg_${newId()}`;
    await sleep(settings.webhook_delay * 1000);
    for (let time = 0; time <= settings.webhook_repeat; time++) {
      const tries = event === "completed" ? settings.webhook_tries : 1;
      for (let attempt = 0; attempt < tries; attempt++) {
        if (attempt) await sleep(settings.webhook_retry_seconds * 1000 * 2 ** (attempt - 1));
        const status = await post(url, id, body);
        this.keep(this.deliveries, { id, event, url, status });
        if (status >= 200 && status < 300) break;
      }
    }
  }

  // --- creating ---

  /** Create a prediction, by version, official model or deployment. */
  async create({ request, response, url, base, path }: Call): Promise<void> {
    const body = await jsonObject(request);
    const where = path.owner ? `${path.owner}/${path.name}` : null;
    const deployment = url.pathname.startsWith("/v1/deployments/") ? where : null;
    checkBody(body, where === null ? [VERSION, ...BODY] : BODY);
    const input = body.input as Json;
    let model: Model;
    if (where === null) model = versioned(String(body.version));
    else if (deployment === null) model = official(where);
    else model = find(MODELS, find(this.deployments, deployment).current_release.model);
    const broken = this.fault("create_500", model.ownerName);
    if (broken && !broken.accepted) throw new Problem(500, "Internal server error");
    this.refuse(model, input);
    const prefer = header(request, "prefer");
    const wait = /^wait(?:=([1-9]|[1-5][0-9]|60))?$/.exec(prefer ?? "wait");
    if (wait === null) throw new Problem(422, "Prefer must be wait or wait=n, n from 1 to 60");
    const version = this.settings.reroute_version ?? model.version ?? "hidden";
    const p = newPrediction({ base, name: model.ownerName, version, input, model, deployment });
    this.start(p, body, request);
    if (broken) throw new Problem(500, "Internal server error");
    if (this.fault("create_reset", p.name)) {
      request.socket.resetAndDestroy();
      return;
    }
    if (prefer === null) return answer(response, this.view(p), 201);
    const end = sleep(Number(wait[1] ?? 60) * 1000, "late" as const, { ref: false });
    while (p.completed === null) {
      if ((await Promise.race([p.changed.promise, end])) === "late") break;
    }
    const shown = this.view(p);
    if (p.completed === null) {
      shown.status = "starting"; // whatever it does: the SDKs then go on asking
    } else if (p.status === "succeeded" && this.settings.wait_says_processing) {
      shown.status = "processing";
    }
    const status = p.completed === null ? 202 : 201;
    answer(response, shown, status, { "preference-applied": prefer });
  }

  /** Throws the Problem that a fault orders, or that the input or the rate limit earns. */
  refuse(model: Model, given: Json): void {
    const name = model.ownerName;
    const unpaid = this.fault("create_402", name);
    if (unpaid) {
      const detail = "You have insufficient credit to run this model. See your billing page.";
      throw new Problem(402, detail, String(unpaid.title ?? "Insufficient credit"));
    }
    const busy = this.fault("create_429", name);
    if (busy) throw throttled(Number(busy.retry_after ?? 5));
    if (this.fault("version_422", name)) throw invalidVersion();
    const errors = mismatches(model.fields, given, "input");
    if (this.fault("create_422", name)) errors.push(["required", "input", "prompt is required"]);
    if (errors.length) throw invalid(errors);
    const limit = this.settings.creates_per_minute;
    if (limit) {
      const time = performance.now() / 1000;
      const refill = ((time - this.refilled) * limit) / 60;
      this.allowance = Math.min(this.settings.creates_burst, this.allowance + refill);
      this.refilled = time;
      if (this.allowance < 1) throw throttled(((1 - this.allowance) * 60) / limit);
      this.allowance -= 1;
    }
  }

  /** Take in a prediction that was checked, and set it going. */
  start(p: Prediction, body: Json, request: IncomingMessage): void {
    p.webhook = (body.webhook as string | undefined) ?? null;
    p.events = (body.webhook_events_filter as string[] | undefined) ?? ["output", "completed"];
    const after = header(request, "cancel-after");
    if (after !== null) {
      const seconds = duration(after);
      if (seconds < this.settings.minimum_cancel_after) {
        throw new Problem(422, "Cancel-After must be a duration of at least 5 seconds");
      }
      p.deadline = p.created + seconds;
      const longest = 2 ** 31 - 1; // of a timer, 24 days
      setTimeout(() => this.stop(p, true), Math.min(seconds * 1000, longest)).unref();
    }
    for (const name of ["abort", "hang", "fail", "output"] as const) {
      const params = this.fault(name, p.name);
      if (params) p.faults.set(name, params);
    }
    this.predictions.set(p.id, p);
    this.run(p).catch((error) => {
      if (!p.stopped.signal.aborted) throw error;
    });
  }

  /** A training: the same life, and a new version of the destination as its output. */
  async train({ request, response, base, path }: Call): Promise<void> {
    const body = await jsonObject(request);
    if (!/^[\w.-]+\/[\w.-]+$/.test(String(body.destination ?? ""))) {
      throw invalid([["required", "(root)", "destination is required"]]);
    }
    const { owner, name, version = "" } = path;
    const input = isObject(body.input) ? body.input : {};
    const p = newPrediction({ base, name: `${owner}/${name}`, version, input });
    p.destination = String(body.destination);
    this.start(p, body, request);
    answer(response, this.view(p), 201);
  }

  // --- reading ---

  get({ response, path }: Call): void {
    const p = find(this.predictions, path.id ?? "");
    answer(response, this.view(p, this.settings.list_webhook_field));
  }

  cancel({ response, path }: Call): void {
    const p = find(this.predictions, path.id ?? "");
    this.stop(p);
    answer(response, this.view(p));
  }

  /** Newest first, a page at a time; `created_after` <= created < `created_before`. */
  listing({ response, url }: Call): void {
    const after = instant(url.searchParams.get("created_after"), Number.NEGATIVE_INFINITY);
    const before = instant(url.searchParams.get("created_before"), Number.POSITIVE_INFINITY);
    let found = [...this.predictions.values()]
      .filter((p) => url.pathname.endsWith(kindOf(p)))
      .filter((p) => after <= p.created && p.created < before)
      .reverse();
    const last = url.searchParams.get("cursor");
    if (last) {
      const place = new Map(found.map((p, index) => [p.id, index]));
      found = found.slice(find(place, last) + 1);
    }
    const shown = found.slice(0, this.settings.page_size);
    const end = found.length > shown.length ? shown.at(-1) : undefined;
    if (end) url.searchParams.set("cursor", end.id);
    const results = shown.map((p) => this.view(p, this.settings.list_webhook_field));
    answer(response, page(results, end ? url.href : null));
  }

  /** A text as it comes, as server-sent events; no token is asked for, as at Replicate. */
  async stream({ response, path }: Call): Promise<void> {
    const p = find(this.predictions, path.id ?? "");
    const type = "text/event-stream; charset=utf-8";
    response.writeHead(200, { "content-type": type, "cache-control": "no-store" });
    await send(response, events(p));
  }

  modelView(model: Model, base: string): Json {
    const [owner, name] = model.ownerName.split("/");
    const shown = this.settings.official_latest_version || model.kind === "community";
    let example: Json | null = null;
    if (model.seconds !== null) {
      const optional = model.fields.filter((field) => !field.required);
      const input = Object.fromEntries(optional.map((field) => [field.name, field.default]));
      const version = model.version ?? "hidden";
      const p = newPrediction({ base, name: model.ownerName, version, input, model });
      p.completed = p.created;
      p.started = p.created = p.created - model.seconds;
      p.status = "succeeded";
      example = this.view(p);
    }
    return {
      description: null,
      github_url: null,
      paper_url: null,
      license_url: null,
      cover_image_url: null,
      url: `https://replicate.com/${model.ownerName}`,
      owner,
      name,
      visibility: "public",
      is_official: model.kind === "official",
      run_count: [...this.predictions.values()].filter((p) => p.model === model).length,
      default_example: example,
      latest_version: shown ? versionView(model) : null,
    };
  }

  /** All models; with QUERY those whose name contains every word of the body. */
  async models({ request, response, base }: Call): Promise<void> {
    // The JavaScript SDK sends the words in quotes.
    const asked = (await bodyOf(request)).toString().toLowerCase().replaceAll('"', "");
    const words = asked.split(/\s+/);
    const found = [...MODELS.values()].filter((model) =>
      words.every((word) => model.ownerName.includes(word)),
    );
    answer(response, page(found.map((model) => this.modelView(model, base))));
  }

  model({ response, base, path }: Call): void {
    answer(response, this.modelView(find(MODELS, `${path.owner}/${path.name}`), base));
  }

  /** The list of versions, which is the pinned one, or that one. */
  versions({ response, path }: Call): void {
    const model = find(MODELS, `${path.owner}/${path.name}`);
    if (model.kind === "official") {
      throw new Problem(404, "This is an official model and does not expose a list of versions");
    }
    const found = versionView(model);
    if (![undefined, found.id].includes(path.version)) throw new Problem(404, NOT_FOUND);
    answer(response, path.version ? found : page([found]));
  }

  deploy(where: string, model: Model) {
    const [owner, name] = where.split("/");
    const release = {
      number: 1,
      model: model.ownerName,
      version: versionView(model).id,
      created_at: rfc3339(now()),
      created_by: ACCOUNT,
      configuration: { hardware: "cpu", min_instances: 1, max_instances: 1 },
    };
    const deployment = { owner, name, current_release: release };
    this.deployments.set(where, deployment);
    return deployment;
  }

  async allDeployments({ request, response }: Call): Promise<void> {
    if (request.method === "POST") {
      const body = await jsonObject(request);
      const model = find(MODELS, String(body.model));
      return answer(response, this.deploy(`${ACCOUNT.username}/${body.name}`, model));
    }
    answer(response, page([...this.deployments.values()].reverse()));
  }

  deployment({ response, path }: Call): void {
    answer(response, find(this.deployments, `${path.owner}/${path.name}`));
  }

  // --- files ---

  uploadView(token: string, base: string): Json {
    const file = find(this.uploads, token);
    return {
      id: token,
      name: file.name,
      content_type: file.contentType,
      size: file.size,
      etag: hash("md5", file.body),
      checksums: { sha256: hash("sha256", file.body) },
      metadata: file.metadata,
      created_at: rfc3339(file.created),
      expires_at: rfc3339(file.created + this.settings.upload_ttl_seconds),
      urls: { get: `${base}v1/files/${token}` },
    };
  }

  /** One upload (GET, DELETE), all of them (GET), or a new one (POST multipart). */
  async files({ request, response, base, path }: Call): Promise<void> {
    for (const [token, file] of this.uploads) {
      if (now() >= file.created + this.settings.upload_ttl_seconds) this.uploads.delete(token);
    }
    if (path.id !== undefined) {
      const shown = this.uploadView(path.id, base);
      if (request.method !== "DELETE") return answer(response, shown);
      this.uploads.delete(path.id);
      response.writeHead(204).end();
    } else if (request.method === "POST") {
      const token = await this.upload(request);
      answer(response, this.uploadView(token, base), 201);
    } else {
      const tokens = [...this.uploads.keys()].reverse();
      answer(response, page(tokens.map((token) => this.uploadView(token, base))));
    }
  }

  async upload(request: IncomingMessage): Promise<string> {
    const headers = { "content-type": header(request, "content-type") ?? "" };
    const sent = new Response(await bodyOf(request), { headers });
    const form = await sent.formData().catch(() => null);
    const content = form?.get("content");
    if (!(content instanceof File)) throw new Problem(400, "Missing content");
    if (content.size > this.settings.max_upload_bytes) {
      throw new Problem(413, "Files must be less than 100MB in size");
    }
    // The JavaScript SDK sends the metadata as a file.
    const about = form?.get("metadata") ?? "{}";
    const metadata = JSON.parse(about instanceof File ? await about.text() : about);
    const token = newId();
    this.uploads.set(token, {
      name: content.name || "file",
      contentType: content.type || "application/octet-stream",
      body: Buffer.from(await content.arrayBuffer()),
      size: content.size,
      model: null,
      metadata,
      created: now(),
    });
    return token;
  }

  /** An output file, for an hour; whoever knows the URL may have it. */
  async output({ request, response, path }: Call): Promise<void> {
    const file = this.outputs.get(path.id ?? "");
    const text = (status: number, body: string, type = "text/plain") => {
      response.writeHead(status, { "content-type": `${type}; charset=utf-8` }).end(body);
    };
    const gone = !file || now() > file.created + this.settings.output_ttl_seconds;
    if (gone || this.fault("file_404", file.model)) return text(404, "Not found");
    if (!request.headers.authorization && this.fault("file_401", file.model)) {
      return text(401, "Unauthorized");
    }
    const redirect = this.fault("file_redirect", file.model);
    if (redirect) {
      response.writeHead(302, { location: String(redirect.url) }).end();
      return;
    }
    const other = this.fault("file_body", file.model);
    if (other) return text(200, String(other.body), String(other.content_type ?? "text/html"));
    const short = this.fault("file_short", file.model) !== null;
    const endless = this.fault("file_endless", file.model) !== null;
    const length = endless ? {} : { "content-length": file.size };
    response.writeHead(200, { "content-type": file.contentType, ...length });
    if (short) {
      response.write(file.body.subarray(0, file.body.length / 2));
      await sleep(50);
      response.destroy();
      return;
    }
    await send(response, padded(file, endless ? Number.POSITIVE_INFINITY : file.size));
  }

  // --- for tests ---

  /** GET shows; POST and DELETE `faults`, POST `settings` (only those to change). */
  async control({ request, response, path }: Call): Promise<void> {
    const change = `${request.method} ${path.name}`;
    if (change === "DELETE faults") {
      this.faults = [];
    } else if (change === "POST faults") {
      const { fault, times = 1, model = null, ...params } = await jsonObject(request);
      if (!Object.hasOwn(FAULTS, String(fault))) {
        throw new Problem(422, `No such fault; there are: ${Object.keys(FAULTS).join(", ")}`);
      }
      this.faults.push({ fault, times, model, params } as Fault);
    } else if (change === "POST settings") {
      const changes = await jsonObject(request);
      const unknown = Object.keys(changes).filter((key) => !Object.hasOwn(SETTINGS, key));
      if (unknown.length) throw new Problem(422, `No such setting: ${unknown.sort().join(", ")}`);
      this.settings = { ...this.settings, ...changes };
    } else if (request.method !== "GET") {
      throw new Problem(405, "Method not allowed");
    }
    const shown = new Map<string, unknown>([
      ["faults", this.faults],
      ["settings", this.settings],
      ["requests", this.requests],
      ["deliveries", this.deliveries],
      ["predictions", [...this.predictions.values()].reverse().map((p) => this.view(p))],
    ]);
    answer(response, find(shown, path.name ?? ""));
  }

  table() {
    type Handler = (call: Call) => void | Promise<void>;
    const route = (methods: string, path: string, handler: Handler) => {
      const pattern = path.replace(/\{(\w+)\}/g, "(?<$1>[^/]+)");
      return [methods.split(" "), new RegExp(`^${pattern}$`), handler.bind(this)] as const;
    };
    const constant =
      (value: unknown): Handler =>
      ({ response }) =>
        answer(response, value);
    const [model, deployment] = ["/v1/models/{owner}/{name}", "/v1/deployments/{owner}/{name}"];
    return [
      route("POST", "/v1/predictions", this.create),
      route("POST", `${model}/predictions`, this.create),
      route("POST", `${deployment}/predictions`, this.create),
      route("POST", `${model}/versions/{version}/trainings`, this.train),
      route("GET", "/v1/(?:predictions|trainings)", this.listing),
      route("GET", "/v1/(?:predictions|trainings)/{id}", this.get),
      route("POST", "/v1/(?:predictions|trainings)/{id}/cancel", this.cancel),
      route("GET", "/_stream/{id}", this.stream),
      route("GET QUERY", "/v1/models", this.models),
      route("GET", model, this.model),
      route("GET", `${model}/versions`, this.versions),
      route("GET", `${model}/versions/{version}`, this.versions),
      route("GET POST", "/v1/deployments", this.allDeployments),
      route("GET", deployment, this.deployment),
      route("GET POST", "/v1/files", this.files),
      route("GET DELETE", "/v1/files/{id}", this.files),
      route("GET", "/_files/{id}/{name}", this.output),
      route("GET", "/v1/webhooks/default/secret", constant({ key: WEBHOOK_SECRET })),
      route("GET", "/v1/account", constant(ACCOUNT)),
      route("GET", "/v1/hardware", constant(HARDWARE)),
      route("GET POST DELETE", "/_emulator/{name}", this.control),
    ];
  }
}

type Asked = Pick<Prediction, "base" | "name" | "version" | "input">;

function newPrediction(
  asked: Asked & Partial<Pick<Prediction, "model" | "deployment">>,
): Prediction {
  return {
    model: null,
    deployment: null,
    destination: "",
    webhook: null,
    events: [],
    id: newId(),
    created: now(),
    deadline: null,
    status: "starting",
    output: null,
    error: null,
    logs: "",
    started: null,
    completed: null,
    told: 0,
    faults: new Map(),
    changed: Promise.withResolvers(),
    stopped: new AbortController(),
    ...asked,
  };
}

function kindOf(p: Prediction): "predictions" | "trainings" {
  return p.model ? "predictions" : "trainings";
}

function streams(p: Prediction): boolean {
  return p.model?.output === "text-stream";
}

/** Wake everyone who waits for a change. */
function touch(p: Prediction): void {
  const { resolve } = p.changed;
  p.changed = Promise.withResolvers();
  resolve();
}

function header(request: IncomingMessage, name: string): string | null {
  return request.headers[name]?.toString() ?? null;
}

/** Throws Problem (422) unless the body has the fields of a create. */
function checkBody(body: Json, fields: Field[]): void {
  const kind = "additional_property_not_allowed";
  const errors = Object.keys(body)
    .filter((key) => !fields.some((field) => field.name === key))
    .map((key): Invalid => [kind, "(root)", `Additional property ${key} is not allowed`]);
  errors.push(...mismatches(fields, body));
  if (errors.length) throw invalid(errors);
  for (const asked of (body.webhook_events_filter as unknown[] | undefined) ?? []) {
    const wrong = mismatches([EVENT], { "0": asked }, "webhook_events_filter");
    if (wrong.length) throw invalid(wrong);
  }
}

function official(name: string): Model {
  const model = find(MODELS, name);
  if (model.kind !== "official") throw new Problem(404, NOT_FOUND);
  return model;
}

/** The model of `owner/name` (official), `owner/name:hash` or `hash` (community). */
function versioned(version: string): Model {
  const found = [...MODELS.values()].find(
    (model) => version === model.ref || version === model.version,
  );
  if (found === undefined) throw invalidVersion();
  return found;
}

/** Post an event; the status of the answer, 0 if there is none. */
async function post(url: string, id: string, body: Buffer<ArrayBuffer>): Promise<number> {
  const timestamp = String(Math.floor(now()));
  const headers = {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": sign(id, timestamp, body),
  };
  try {
    const signal = AbortSignal.timeout(10_000);
    const reply = await fetch(url, { method: "POST", body, headers, redirect: "manual", signal });
    await reply.body?.cancel();
    return reply.status;
  } catch {
    return 0;
  }
}

/** The pieces of a text as they come, and how it ended. */
async function* events(p: Prediction): AsyncGenerator<string> {
  let sent = 0;
  while (true) {
    const [changed, over] = [p.changed.promise, p.completed !== null];
    const pieces = Array.isArray(p.output) ? p.output : [];
    for (const piece of pieces.slice(sent)) {
      sent += 1;
      yield serverSent("output", String(piece), `${p.id}:${sent}`);
    }
    if (over) break;
    await changed;
  }
  if (p.status === "failed") {
    yield serverSent("error", JSON.stringify({ detail: p.error }), `${p.id}:error`);
  }
  const reasons: Partial<Record<Status, Json>> = { succeeded: {}, failed: { reason: "error" } };
  const done = reasons[p.status] ?? { reason: "canceled" };
  yield serverSent("done", JSON.stringify(done), `${p.id}:done`);
}

/** A file's bytes and then zeros, up to `size`. */
function* padded(file: StoredFile, size: number): Generator<Buffer> {
  yield file.body;
  const zeros = Buffer.alloc(1 << 16);
  for (let left = size - file.body.length; left > 0; left -= zeros.length) {
    yield zeros.subarray(0, Math.min(left, zeros.length));
  }
}

/** Write everything, at the reader's pace; a reader who leaves ends it. */
async function send(
  response: ServerResponse,
  parts: Iterable<Buffer> | AsyncIterable<string>,
): Promise<void> {
  await pipeline(Readable.from(parts), response).catch(() => response.destroy());
}

/** An emulator with a state of its own: `createEmulator().listen(8787, "127.0.0.1")`. */
export function createEmulator(settings: Partial<Settings> = {}): Server {
  const emulator = new Emulator(settings);
  return createServer((request, response) => void emulator.handle(request, response));
}

function main(): void {
  const { values } = parseArgs({
    options: {
      host: { type: "string", default: "127.0.0.1" },
      port: { type: "string", default: "8787" },
      "cold-start": { type: "string", default: String(SETTINGS.cold_start_seconds) },
      run: { type: "string", default: String(SETTINGS.run_seconds) },
    },
  });
  createEmulator({
    cold_start_seconds: Number(values["cold-start"]),
    run_seconds: Number(values.run),
  }).listen(Number(values.port), values.host);
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main();

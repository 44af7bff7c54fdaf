/** Settings from the environment (and `.env.local`); checked once, at start. */
import "server-only";
import { z } from "zod";
import { parseProxies } from "./addresses.ts";
import { signingKeys } from "./webhook.ts";

/** What a setting may change about one model; prices in any one currency. */
const modelSettings = z.strictObject({
  deployment: z
    .string()
    .regex(/^[\w.-]+\/[\w.-]+$/)
    .optional(),
  mode: z.enum(["run", "webhook"]).optional(),
  price_per_second: z.number().min(0).optional(),
  price_per_run: z.number().min(0).optional(),
});

const flag = z.stringbool().default(false);
const count = (least: number) => z.coerce.number().int().min(least);

/** Every setting by its environment variable; sizes in bytes, times in seconds. */
const environment = z.object({
  ENVIRONMENT: z.enum(["production", "development"]).default("production"),
  REPLICATE_API_TOKEN: z.string().default(""),
  REPLICATE_BASE_URL: z.url().default("https://api.replicate.com/v1"),
  REPLICATE_WEBHOOK_SECRET: z.string().default(""),
  PUBLIC_URL: z.union([z.literal(""), z.url()]).default(""),
  DATABASE_URL: z.string().default("sqlite:///var/app.db"),
  STORAGE_URL: z.string().default("./var/outputs"),
  SESSION_SECRET: z.string().default(""),
  CRON_SECRET: z.string().default(""),
  ALLOW_ANONYMOUS: flag,
  MODEL_SETTINGS: z
    .string()
    .default("{}")
    .transform((text, context) => {
      try {
        return JSON.parse(text) as unknown;
      } catch {
        context.addIssue("is not JSON");
        return z.NEVER;
      }
    })
    .pipe(z.record(z.string(), modelSettings)),
  PRIME: flag,
  CANCEL_AFTER_SECONDS: count(5).default(600),
  RUN_WAIT_SECONDS: count(1).max(60).default(10),
  MAX_OUTPUT_BYTES: count(1).default(5 * 2 ** 30),
  MAX_UPLOAD_BYTES: count(1).default(100 * 2 ** 20),
  CALLER_PER_MINUTE: count(1).default(30),
  ADDRESS_PER_MINUTE: count(1).default(60),
  DAILY_PREDICTIONS: count(0).default(2_000),
  DAILY_SECONDS: z.coerce.number().min(0).default(20_000),
  FORWARDED_ALLOW_IPS: z
    .string()
    .default("127.0.0.1")
    .transform((text, context) => {
      try {
        return parseProxies(text);
      } catch (error) {
        context.addIssue(error instanceof Error ? error.message : String(error));
        return z.NEVER;
      }
    }),
  WORKER_IN_WEB: flag,
  WORKER_CONCURRENCY: count(1).default(8),
});

/**
 * The most that may be started: per caller and address a minute, and by everyone a UTC day.
 *
 * Uploads are counted apart from predictions, by the same numbers.
 */
export interface Limits {
  callerPerMinute: number;
  addressPerMinute: number;
  dailyPredictions: number;
  dailySeconds: number;
}

export type Settings = ReturnType<typeof loadSettings>;

/** The environment does not say what the project needs; the message names each variable. */
export class SettingsError extends Error {}

/**
 * Read the settings; `complete` is false where a script needs only some of them.
 *
 * @throws SettingsError a value is missing or wrong.
 */
export function loadSettings(
  variables: Record<string, string | undefined> = process.env,
  complete = true,
) {
  // A secret from a file often ends in a line feed; an empty variable is one that was not set.
  const trimmed = Object.entries(variables).map(([name, value]) => [name, value?.trim()] as const);
  const given = trimmed.filter(([, value]) => value);
  const read = environment.safeParse(Object.fromEntries(given));
  if (!read.success) {
    const lines = read.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new SettingsError(lines.join("\n"));
  }
  const its = read.data;
  const development = its.ENVIRONMENT === "development";
  const base = new URL(its.REPLICATE_BASE_URL);
  const foreignBase = base.hostname !== "api.replicate.com";
  if (complete) checkComplete(its, development, foreignBase, Boolean(variables.VERCEL));
  return {
    development,
    replicateApiToken: its.REPLICATE_API_TOKEN,
    replicateBaseUrl: its.REPLICATE_BASE_URL,
    /** The keys that a webhook may be signed with; none where no webhook is asked for. */
    webhookKeys: webhookKeys(its.REPLICATE_WEBHOOK_SECRET),
    publicUrl: its.PUBLIC_URL.replace(/\/+$/, ""),
    databaseUrl: its.DATABASE_URL,
    storageUrl: its.STORAGE_URL,
    sessionSecret: its.SESSION_SECRET || "development",
    /** What Vercel's cron sends; empty: the cron route is closed. */
    cronSecret: its.CRON_SECRET,
    allowAnonymous: its.ALLOW_ANONYMOUS,
    modelSettings: its.MODEL_SETTINGS,
    prime: its.PRIME,
    cancelAfterSeconds: its.CANCEL_AFTER_SECONDS,
    runWaitSeconds: its.RUN_WAIT_SECONDS,
    maxOutputBytes: its.MAX_OUTPUT_BYTES,
    maxUploadBytes: its.MAX_UPLOAD_BYTES,
    limits: {
      callerPerMinute: its.CALLER_PER_MINUTE,
      addressPerMinute: its.ADDRESS_PER_MINUTE,
      dailyPredictions: its.DAILY_PREDICTIONS,
      dailySeconds: its.DAILY_SECONDS,
    } satisfies Limits,
    /** Whose `X-Forwarded-For` counts; anyone else could choose their address. */
    proxies: its.FORWARDED_ALLOW_IPS,
    workerInWeb: its.WORKER_IN_WEB,
    workerConcurrency: its.WORKER_CONCURRENCY,
    /** Where outputs may come from besides Replicate: the emulator, in development only. */
    emulatorOrigin: development && foreignBase ? base.origin : null,
  };
}

function checkComplete(
  its: z.infer<typeof environment>,
  development: boolean,
  foreignBase: boolean,
  onVercel: boolean,
): void {
  const missing: string[] = [];
  if (!its.REPLICATE_API_TOKEN) {
    missing.push("REPLICATE_API_TOKEN (from replicate.com/account/api-tokens)");
  }
  if (!development) {
    if (!its.PUBLIC_URL.startsWith("https://")) {
      missing.push("PUBLIC_URL (the https address that Replicate can reach)");
    }
    if (!its.REPLICATE_WEBHOOK_SECRET) {
      missing.push("REPLICATE_WEBHOOK_SECRET (`npx tsx scripts/doctor.ts` shows how)");
    }
    if (its.SESSION_SECRET.length < 32) {
      missing.push("SESSION_SECRET (at least 32 random characters)");
    }
    if (onVercel) {
      if (!its.CRON_SECRET) missing.push("CRON_SECRET (at least 16 random characters)");
      if (!its.DATABASE_URL.startsWith("postgres")) {
        missing.push("DATABASE_URL (postgresql://…: on Vercel no file stays)");
      }
      if (!its.STORAGE_URL.includes("://")) {
        missing.push("STORAGE_URL (vercel-blob://… or s3://…: on Vercel no file stays)");
      }
    }
    if (foreignBase) {
      throw new SettingsError("REPLICATE_BASE_URL is honoured in development only: unset it");
    }
  }
  if (missing.length > 0) throw new SettingsError(`missing: ${missing.join("; ")}`);
  if (its.PUBLIC_URL && !its.REPLICATE_WEBHOOK_SECRET) {
    throw new SettingsError("PUBLIC_URL needs REPLICATE_WEBHOOK_SECRET: webhooks are verified");
  }
}

function webhookKeys(secret: string): Buffer[] {
  try {
    return secret ? signingKeys(secret) : [];
  } catch (error) {
    throw new SettingsError(error instanceof Error ? error.message : String(error));
  }
}

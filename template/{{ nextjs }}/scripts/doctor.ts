/**
 * Is everything there for real predictions? `npx tsx scripts/doctor.ts`. Spends nothing.
 *
 * One line for each check, with the way out where it says NO; exit code 1 if any does. With
 * `--show-secret` it only prints the line that `.env.local` needs: `… --show-secret >> .env.local`.
 */
import { given, run, told } from "./command.ts";

const { values } = given("npx tsx scripts/doctor.ts [--show-secret]", {
  options: { "show-secret": { type: "boolean" } },
});
const { ANONYMOUS } = await import("../src/lib/caller.ts");
const { openDatabase } = await import("../src/lib/database.ts");
const { Gateway, isGatewayError } = await import("../src/lib/replicate.ts");
const { modelOf } = await import("../src/lib/inputs.ts");
const { loadSettings } = await import("../src/lib/settings.ts");
const { openStorage, probe } = await import("../src/lib/storage.ts");
const { Store } = await import("../src/lib/store.ts");

type Settings = ReturnType<typeof loadSettings>;

const WEBHOOKS = "/api/webhooks/replicate";

/** What a check found, and the way out. */
class Wrong extends Error {}

/** The secret that signs the account's webhooks, as Replicate says it; Wrong without one. */
async function replicatesSecret(settings: Settings): Promise<string> {
  if (!settings.replicateApiToken) {
    throw new Wrong("REPLICATE_API_TOKEN is not set: replicate.com/account/api-tokens makes one");
  }
  try {
    return await new Gateway(settings).webhookSecret();
  } catch (error) {
    if (!isGatewayError(error)) throw error;
    throw new Wrong(`${settings.replicateBaseUrl}: ${told(error)}`);
  }
}

async function token(settings: Settings): Promise<string> {
  await replicatesSecret(settings);
  return "Replicate takes it";
}

async function webhookSecret(settings: Settings): Promise<string> {
  const shown = "`npx tsx scripts/doctor.ts --show-secret >> .env.local` puts it there";
  const own = (process.env.REPLICATE_WEBHOOK_SECRET ?? "").split(/\s+/).filter(Boolean);
  if (own.length === 0) {
    if (settings.development && !settings.publicUrl) {
      return "none, and none needed without PUBLIC_URL (development)";
    }
    throw new Wrong(`REPLICATE_WEBHOOK_SECRET is not set: ${shown}`);
  }
  const wanted = await replicatesSecret(settings).catch(() => {
    throw new Wrong("Replicate does not say which it is: see the token");
  });
  if (own.includes(wanted)) return "is Replicate's";
  throw new Wrong(`REPLICATE_WEBHOOK_SECRET is not Replicate's: ${shown}`);
}

/** Send what Replicate would, unsigned: the service, and nothing before it, must refuse it. */
async function publicAddress(settings: Settings): Promise<string> {
  if (!settings.publicUrl) {
    if (settings.development) return "none, so the worker asks Replicate every 2 s (development)";
    throw new Wrong("PUBLIC_URL is not set: the https address of this service");
  }
  const url = settings.publicUrl + WEBHOOKS;
  const headers = { "content-type": "application/json" };
  const signal = AbortSignal.timeout(10_000);
  const asked = { method: "POST", body: "{}", headers, redirect: "manual", signal } as const;
  const reply = await fetch(url, asked).catch((error) => {
    throw new Wrong(`${url}: ${told(error)}; is the service running?`);
  });
  if (reply.status >= 300 && reply.status < 400) {
    const where = reply.headers.get("location");
    throw new Wrong(`${url} redirects to ${where}, and Replicate follows no redirect`);
  }
  if (reply.status !== 400) {
    throw new Wrong(`${url} answers ${reply.status}: another service, or a login, is before it`);
  }
  return `${url} can be reached`;
}

async function storage({ storageUrl }: Settings): Promise<string> {
  await probe(await openStorage(storageUrl)).catch((error) => {
    throw new Wrong(`STORAGE_URL ${storageUrl}: ${told(error)}`);
  });
  return `wrote to, read from and removed from ${storageUrl}`;
}

async function database({ databaseUrl }: Settings): Promise<string> {
  const store = new Store(openDatabase(databaseUrl));
  await store.overdue(0).catch((error) => {
    throw new Wrong(`${told(error).split("\n")[0]}; \`npm run migrate\` makes the tables`);
  });
  await store.close();
  return "has its tables";
}

async function complete(): Promise<string> {
  const { development, allowAnonymous, modelSettings } = loadSettings();
  if (ANONYMOUS && !development && !allowAnonymous) {
    throw new Wrong(
      "anyone could start billed predictions: put your sign-in into src/lib/caller.ts," +
        " or set ALLOW_ANONYMOUS=1",
    );
  }
  const strange = Object.keys(modelSettings).filter((key) => !modelOf(key));
  if (strange.length > 0) {
    throw new Wrong(`MODEL_SETTINGS has no effect on ${strange.join(", ")}: no model here`);
  }
  return `complete (${development ? "development" : "production"})`;
}

const CHECKS = {
  settings: complete,
  token,
  "webhook secret": webhookSecret,
  "public address": publicAddress,
  storage,
  database,
};

await run(async () => {
  const settings = loadSettings(process.env, false);
  if (values["show-secret"]) {
    console.log(`REPLICATE_WEBHOOK_SECRET=${await replicatesSecret(settings)}`);
    return 0;
  }
  let code = 0;
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      console.log(`ok  ${name}: ${await check(settings)}`);
    } catch (error) {
      code = 1;
      console.log(`NO  ${name}: ${told(error)}`);
    }
  }
  return code;
});

/** What the scripts share: `.env.local`, modules for the server alone, and errors in one line. */
import { existsSync, readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { type ParseArgsConfig, parseArgs } from "node:util";
import type { Service } from "../src/lib/service.ts";

if (existsSync(".env.local")) process.loadEnvFile(".env.local");

// What these modules guard against, a browser and a missing bundler, a script need not fear. It
// imports the others when it runs: `await import("../src/lib/app.ts")`.
registerHooks({
  resolve(specifier, context, next) {
    if (specifier === "server-only") return { url: "data:text/javascript,", shortCircuit: true };
    return next(specifier === "next/headers" ? "next/headers.js" : specifier, context);
  },
});

/** A script cannot do its work; the message says why and the way out. */
export class Failed extends Error {}

/** The arguments by the configuration; --help tells of the script, any others end with code 2. */
export function given<T extends ParseArgsConfig>(usage: string, config: T, positionals = 0) {
  if (process.argv.includes("--help")) {
    console.log(`${usage}\n\n${manual()}`);
    process.exit(0);
  }
  try {
    const read = parseArgs({ ...config, allowPositionals: true as const });
    if (read.positionals.length >= positionals) return read;
    return misused(usage);
  } catch (error) {
    return misused(`${told(error)}\n${usage}`);
  }
}

/** The comment that the script begins with. */
function manual(): string {
  const source = readFileSync(process.argv[1] ?? "", "utf8");
  const [, text = ""] = /^\/\*\*(.*?)\*\//s.exec(source) ?? [];
  return text.replace(/^ \* ?/gm, "").trim();
}

export function misused(text: string): never {
  console.error(text);
  process.exit(2);
}

/** One of several; for anything else what there is, and exit code 2. */
export function chosen<T>(among: Record<string, T>, name: string): T {
  const found = Object.hasOwn(among, name) ? among[name] : undefined;
  const names = Object.keys(among).join(", ");
  return found ?? misused(`invalid choice: '${name}' (choose from ${names})`);
}

/** End the script with the exit code of `main`; 1 and one line where it cannot go on. */
export async function run(main: () => Promise<number | undefined>): Promise<never> {
  // `| head` has read enough
  process.stdout.on("error", () => process.exit(1));
  try {
    process.exit((await main()) ?? 0);
  } catch (error) {
    console.error(told(error));
    process.exit(1);
  }
}

/** The lines of a file; throws Failed. */
export function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .replace(/^\ufeff/, "")
      .split(/\r?\n/);
  } catch (error) {
    throw new Failed(`${path} cannot be read: ${told(error)}`);
  }
}

/** For JSON.stringify: the same text, whatever the order of the names. */
export function sorted(_: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * The project's service on its database; `complete` demands all settings.
 *
 * @throws SettingsError a setting is missing or wrong; Failed: the database cannot be read.
 */
export async function openService(complete = false): Promise<Service> {
  const { openDatabase } = await import("../src/lib/database.ts");
  const { Service } = await import("../src/lib/service.ts");
  const { loadSettings, SettingsError } = await import("../src/lib/settings.ts");
  const { openStorage } = await import("../src/lib/storage.ts");
  const { Store } = await import("../src/lib/store.ts");
  const { UploadStore } = await import("../src/lib/upload-store.ts");
  const settings = loadSettings(process.env, complete);
  try {
    const database = openDatabase(settings.databaseUrl);
    const store = new Store(database);
    await store.overdue(Date.now() / 1000);
    const storage = await openStorage(settings.storageUrl);
    return new Service(settings, store, new UploadStore(database), storage);
  } catch (error) {
    if (error instanceof SettingsError) throw error;
    throw new Failed(
      `The database cannot be read (${told(error)}): is DATABASE_URL right?` +
        " `npm run migrate` makes the tables.",
    );
  }
}

/** `npm run dev`: the emulator, the web process and a worker, with no token and no bill. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, parseEnv } from "node:util";

const TOKEN = "r8_emulator";
const DEVELOPMENT = ".env.development.local";
process.chdir(dirname(import.meta.dirname));

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "3000" },
    "emulator-port": { type: "string", default: "8787" },
    // Serve what `npm run build` has made, as in production, instead of compiling as you edit.
    built: { type: "boolean", default: false },
  },
});
const url = `http://127.0.0.1:${values.port}`;
const api = `http://127.0.0.1:${values["emulator-port"]}/v1`;
if (existsSync(DEVELOPMENT)) process.loadEnvFile(DEVELOPMENT);
// What stands in .env.local is for the real API. Next.js reads it, but not over what is set.
const real = existsSync(".env.local") ? parseEnv(readFileSync(".env.local", "utf-8")) : {};
for (const name of Object.keys(real)) process.env[name] ??= "";
// Its own: a real worker must not find rows of ours to send, nor its limits count them.
process.env.DATABASE_URL ||= "sqlite:///var/dev/app.db";
process.env.STORAGE_URL ||= "./var/dev/outputs";
Object.assign(process.env, {
  ENVIRONMENT: "development",
  REPLICATE_API_TOKEN: TOKEN,
  REPLICATE_BASE_URL: api,
  PUBLIC_URL: url,
});

const children: ChildProcess[] = [];
let stopping = false;

function start(...command: string[]): ChildProcess {
  const child = spawn(process.execPath, command, { stdio: "inherit" });
  children.push(child);
  return child;
}

/** Start what must go on for as long as we do. */
function serve(...command: string[]): void {
  start(...command).once("exit", (code, signal) => {
    if (stopping) return;
    console.error(`node ${command.join(" ")} ended with ${code ?? signal}`);
    void stop(1);
  });
}

async function stop(status: number): Promise<never> {
  stopping = true;
  const ends = children
    .filter((child) => child.exitCode === null && child.signalCode === null)
    .map((child) => [once(child, "exit"), child.kill()]);
  await Promise.all(ends.flat());
  process.exit(status);
}

/** End where something listens on the port. */
async function mustBeFree(option: "port" | "emulator-port"): Promise<void> {
  const tried = connect(Number(values[option]), "127.0.0.1");
  const taken = await once(tried, "connect").catch(() => null);
  tried.destroy();
  if (!taken) return;
  console.error(`Port ${values[option]} is taken: give another one by --${option}`);
  process.exit(1);
}

/** Ask until there is an answer. */
async function answered(address: string): Promise<Response> {
  for (;;) {
    try {
      return await fetch(address, { headers: { authorization: `Bearer ${TOKEN}` } });
    } catch {
      await sleep(100);
    }
  }
}

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop(0));

await mustBeFree("port");
await mustBeFree("emulator-port");
serve("dev/emulator.ts", "--port", values["emulator-port"]);
const secret = await answered(`${api}/webhooks/default/secret`);
process.env.REPLICATE_WEBHOOK_SECRET = ((await secret.json()) as { key: string }).key;
const [failed] = await once(start("--conditions=react-server", "src/migrate.ts"), "exit");
if (failed) await stop(1);
const served = values.built ? "start" : "dev";
serve("node_modules/next/dist/bin/next", served, "--hostname", "127.0.0.1", "--port", values.port);
serve("--conditions=react-server", "src/worker.ts");
await answered(`${url}/healthz`);
console.log(`\n  Open ${url}  (on the emulator: no token, no bill; stop with Ctrl+C)\n`);

/** The application: settings, database, storage and service put together, once per process. */
import "server-only";
import { openDatabase } from "./database.ts";
import { Queue } from "./queue.ts";
import { Gateway } from "./replicate.ts";
import { Service } from "./service.ts";
import { loadSettings, type Settings } from "./settings.ts";
import { openStorage } from "./storage.ts";
import { Store } from "./store.ts";
import { UploadStore } from "./upload-store.ts";
import { Waiting } from "./waiting.ts";
import { Worker } from "./worker.ts";

export interface App {
  settings: Settings;
  service: Service;
  waiting: Waiting;
  worker: Worker;
}

// Next.js loads modules anew for each route while it develops: what holds connections stays here.
const shared = globalThis as { replicateApp?: Promise<App> };

/**
 * The application of this process.
 *
 * @throws SettingsError the environment does not say what the project needs.
 */
export function app(): Promise<App> {
  shared.replicateApp ??= open();
  return shared.replicateApp;
}

async function open(): Promise<App> {
  const settings = loadSettings();
  const database = openDatabase(settings.databaseUrl);
  const store = new Store(database);
  const storage = await openStorage(settings.storageUrl);
  const service = new Service(settings, store, new UploadStore(database), storage);
  const gateway = new Gateway(settings);
  const worker = new Worker(service, new Queue(database), gateway);
  return { settings, service, waiting: new Waiting(store), worker };
}

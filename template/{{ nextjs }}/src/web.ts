/** What the web process does when it starts, called by instrumentation.ts. */
import { app } from "./lib/app.ts";
import { ANONYMOUS } from "./lib/caller.ts";
import { watchConnections } from "./lib/connection.ts";
import { log } from "./lib/log.ts";
import { SettingsError } from "./lib/settings.ts";
import { orExplain } from "./lib/start.ts";

/** Check what the web process needs; do the worker's work where WORKER_IN_WEB is set. */
export async function startWeb(): Promise<void> {
  watchConnections();
  await orExplain(async () => {
    const { settings, worker } = await app();
    if (ANONYMOUS && !settings.development && !settings.allowAnonymous) {
      throw new SettingsError(
        "Anyone could start billed predictions: put your sign-in into src/lib/caller.ts," +
          " or set ALLOW_ANONYMOUS=1",
      );
    }
    if (settings.workerInWeb) {
      worker.run(new AbortController().signal).catch((error: unknown) => {
        log.error({ err: error }, "the worker has ended");
      });
    }
  });
}

/** On Vercel no process lives between requests: they do the work, and so does the cron. */
import "server-only";
import { after } from "next/server";
import { app } from "./app.ts";

/** Seconds for which one request may work on; below each route's `maxDuration`. */
export const BATCH_SECONDS = 45;

/** Do what is due where no worker does: at once, since the answer may wait for it, and after it. */
export function workSoon(): void {
  if (process.env.VERCEL) after(app().then(({ worker }) => worker.batch(BATCH_SECONDS)));
}

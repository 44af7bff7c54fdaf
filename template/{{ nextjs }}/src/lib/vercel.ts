/** On Vercel no process lives between requests: work is done after an answer, and by the cron. */
import "server-only";
import { after } from "next/server";
import { app } from "./app.ts";

/** Seconds for which one request may work after its answer; below each route's `maxDuration`. */
export const BATCH_SECONDS = 45;

/** Do what is due after the answer, where no worker does. */
export function workSoon(): void {
  if (process.env.VERCEL) after(async () => (await app()).worker.batch(BATCH_SECONDS));
}

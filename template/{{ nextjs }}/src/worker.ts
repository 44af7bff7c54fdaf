/** `npm run worker`: works until it is told to stop. */
import { app } from "./lib/app.ts";
import { orExplain } from "./lib/start.ts";

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop.abort());
await orExplain(async () => {
  await (await app()).worker.run(stop.signal);
  process.exit(0);
});

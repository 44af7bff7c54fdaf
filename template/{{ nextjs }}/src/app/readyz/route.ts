import { app } from "@/lib/app.ts";
import { route } from "@/lib/http.ts";
import { now } from "@/lib/prediction.ts";

/** Seconds after which a due prediction shows that no worker works. */
const WORKER_LATE = 60;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async () => {
    const { service } = await app();
    const checks = { database: "ok", storage: "ok", worker: "ok" };
    let drift: Awaited<ReturnType<typeof service.drift>> = [];
    try {
      const late = await service.store.overdue(now());
      if (late > WORKER_LATE) {
        checks.worker = `a prediction has waited ${Math.round(late)} s for a worker`;
      }
      drift = await service.drift();
    } catch (error) {
      checks.database = error instanceof Error ? error.name : "error";
    }
    try {
      await service.storage.check();
    } catch (error) {
      checks.storage = error instanceof Error ? error.message : "error";
    }
    const ready = Object.values(checks).every((check) => check === "ok");
    const status = ready ? "ready" : "not ready";
    return Response.json({ status, checks, drift }, { status: ready ? 200 : 503 });
  },
});

import { app } from "@/lib/app.ts";
import { route } from "@/lib/http.ts";
import { notFound } from "@/lib/problems.ts";
import { sameSecret } from "@/lib/secrets.ts";
import { BATCH_SECONDS } from "@/lib/vercel.ts";

export const maxDuration = 60;

/** Called by Vercel's cron (vercel.json), which sends CRON_SECRET; closed without one. */
export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async (request) => {
    const { settings, worker } = await app();
    const given = request.headers.get("authorization") ?? "";
    if (!settings.cronSecret || !sameSecret(given, `Bearer ${settings.cronSecret}`)) {
      throw notFound();
    }
    await worker.tidy();
    await worker.batch(BATCH_SECONDS);
    return Response.json({ status: "ok" });
  },
});

import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { queryNumber, route } from "@/lib/http.ts";
import { asJson, hasChanged, isSettled, present } from "@/lib/prediction.ts";
import { notFound } from "@/lib/problems.ts";
import { workSoon } from "@/lib/vercel.ts";

/** Seconds; above the longest wait. */
export const maxDuration = 60;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async (request, { id = "" }) => {
    const { service, waiting } = await app();
    const wait = queryNumber(request, "wait", { least: 0, most: 20, otherwise: 0 });
    const first = await service.get(await caller(), id);
    const { row } = first;
    if (wait === 0 || isSettled(row)) return Response.json(asJson(first));
    const last = await waiting.until(row, wait, (now) => hasChanged(row, now), request.signal);
    if (!last) throw notFound();
    return Response.json(asJson(present(last)));
  },

  DELETE: async (_, { id = "" }) => {
    const { service } = await app();
    await service.delete(await caller(), id);
    workSoon();
    return new Response(null, { status: 204 });
  },
});

import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { addressOf, route } from "@/lib/http.ts";
import { workSoon } from "@/lib/vercel.ts";

export const maxDuration = 60;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  POST: async (request, { key = "" }) => {
    const { service } = await app();
    const started = await service.prime(await caller(), await addressOf(request), key);
    workSoon();
    return Response.json({ model: key, started }, { status: 202 });
  },
});

import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { route } from "@/lib/http.ts";
import { asJson, isSettled, present } from "@/lib/prediction.ts";
import { notFound } from "@/lib/problems.ts";
import { workSoon } from "@/lib/vercel.ts";

/** For so many seconds the answer is held, so that it mostly says `canceled`. */
const HOLD = 2;

export const maxDuration = 60;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  POST: async (request, { id = "" }) => {
    const { service, waiting } = await app();
    const { row } = await service.cancel(await caller(), id);
    workSoon();
    const last = isSettled(row) ? row : await waiting.until(row, HOLD, isSettled, request.signal);
    if (!last) throw notFound();
    return Response.json(asJson(present(last)));
  },
});

import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { follow } from "@/lib/events.ts";
import { route, streamed } from "@/lib/http.ts";

/** Seconds; where the platform ends it earlier, the browser connects again. */
export const maxDuration = 300;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async (request, { id = "" }) => {
    const { row } = await (await app()).service.get(await caller(), id);
    return new Response(streamed(follow(row, request.signal)), {
      headers: { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no" },
    });
  },
});

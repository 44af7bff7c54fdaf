import { z } from "zod";
import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { addressOf, isJson, queryNumber, readBody, route } from "@/lib/http.ts";
import { asJson, isSettled, present } from "@/lib/prediction.ts";
import { invalidInput, Problem } from "@/lib/problems.ts";
import { workSoon } from "@/lib/vercel.ts";

/** Seconds; above every wait, which RUN_WAIT_SECONDS bounds. */
export const maxDuration = 90;

const newPrediction = z.strictObject({
  model: z.string(),
  input: z.record(z.string(), z.unknown()),
});

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async (request) => {
    const { service } = await app();
    const cursor = request.nextUrl.searchParams.get("cursor");
    const limit = queryNumber(request, "limit", { least: 1, most: 100, otherwise: 20 });
    const { predictions, nextCursor } = await service.page(await caller(), cursor, limit);
    return Response.json({ results: predictions.map(asJson), next_cursor: nextCursor });
  },

  POST: async (request) => {
    const { service, settings, waiting } = await app();
    const { model, input } = await readNew(request);
    const owner = await caller();
    let prediction = await service.start({
      caller: owner,
      address: await addressOf(request),
      model,
      input,
      idempotencyKey: request.headers.get("idempotency-key"),
    });
    workSoon();
    const { row } = prediction;
    const hurried = request.headers.get("prefer")?.includes("respond-async") ?? false;
    if (row.mode === "run" && !hurried && !isSettled(row)) {
      const seconds = settings.runWaitSeconds;
      const last = await waiting.until(row, seconds, isSettled, request.signal);
      prediction = last ? present(last) : await service.get(owner, row.id);
    }
    return Response.json(asJson(prediction), {
      status: isSettled(prediction.row) ? 201 : 202,
      headers: { Location: `/api/predictions/${row.id}` },
    });
  },
});

async function readNew(request: Request): Promise<z.infer<typeof newPrediction>> {
  if (!isJson(request.headers)) {
    throw new Problem(415, "Not JSON", "Send Content-Type: application/json.");
  }
  const read = newPrediction.safeParse(parsed(await readBody(request)));
  if (!read.success) throw invalidInput(read.error);
  return read.data;
}

function parsed(body: Buffer): unknown {
  // No body at all is a body without its fields.
  if (body.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new Problem(400, "Not JSON", "The body cannot be read as JSON.");
  }
}

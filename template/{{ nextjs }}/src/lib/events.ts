/** The server-sent events of one prediction: itself, each change, its text as it comes, its end. */
import "server-only";
import { app } from "./app.ts";
import { asJson, hasChanged, isOver, isSettled, present, type Row } from "./prediction.ts";
import { textPieces } from "./stream.ts";

/** Seconds between two looks, however still it is. */
const HOLD = 15;

export async function* follow(first: Row, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const { settings, waiting } = await app();
  const end = Date.now() + (settings.cancelAfterSeconds + 60) * 1000;
  let row = first;
  let streamed = false;
  yield event("prediction", asJson(present(row)));
  while (!isSettled(row) && Date.now() < end && !signal.aborted) {
    const url = row.stream_url;
    if (url !== null && !streamed && !isOver(row)) {
      streamed = true;
      for await (const piece of textPieces(url, settings.emulatorOrigin, signal)) {
        yield event("output", piece);
      }
    }
    const before = row;
    const after = await waiting.until(before, HOLD, (now) => hasNews(before, now), signal);
    if (after === null) return; // deleted
    row = after;
    yield event("prediction", asJson(present(row)));
  }
  yield event("done", asJson(present(row)));
}

function hasNews(before: Row, after: Row): boolean {
  return hasChanged(before, after) || before.stream_url !== after.stream_url;
}

const encoder = new TextEncoder();

function event(name: string, data: unknown): Uint8Array {
  return encoder.encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}

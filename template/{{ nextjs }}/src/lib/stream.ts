/** Text as it comes: Replicate's stream of a running prediction, piece by piece. */
import "server-only";
import { EventSourceParserStream } from "eventsource-parser/stream";

/** Whether the URL is Replicate's (https, replicate.com) or the emulator's. */
export function isAllowedStream(url: string, emulatorOrigin: string | null): boolean {
  const parts = URL.parse(url);
  if (parts === null) return false;
  if (parts.origin === emulatorOrigin) return true;
  const host = parts.hostname;
  const theirs = host === "replicate.com" || host.endsWith(".replicate.com");
  return parts.protocol === "https:" && theirs;
}

/**
 * The pieces of a text as they are made; ends early, without an error, when the stream breaks.
 *
 * What the caller saw is only a preview: the stored output is the whole text.
 */
export async function* textPieces(
  url: string,
  emulatorOrigin: string | null,
  signal: AbortSignal,
): AsyncGenerator<string> {
  if (!isAllowedStream(url, emulatorOrigin)) return;
  try {
    const headers = { Accept: "text/event-stream" };
    const reply = await fetch(url, { headers, cache: "no-store", redirect: "error", signal });
    if (!reply.ok || reply.body === null) return;
    const events = reply.body
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
    for await (const event of events) {
      if (event.event === "output") yield event.data;
      else if (event.event === "done" || event.event === "error") return;
    }
  } catch {
    return;
  }
}

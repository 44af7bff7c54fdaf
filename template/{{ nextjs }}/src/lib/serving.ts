/** How a stored file is served. */
import type { Span } from "./storage.ts";

const SAFE_INLINE = ["image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/"];

/** Whether a browser may show it in place: pictures of pixels, sound and film, which run nothing. */
export function isSafeInline(contentType: string): boolean {
  return SAFE_INLINE.some((safe) => contentType.startsWith(safe));
}

/** One byte range; undefined where the whole file is to be sent. */
export function spanOf(header: string | null, size: number): Span | undefined {
  const [, first = "", last = ""] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? "") ?? [];
  if (!first && !last) return undefined;
  const start = first ? Number(first) : Math.max(0, size - Number(last));
  const end = first && last ? Math.min(size, Number(last) + 1) : size;
  return start < end ? { start, end } : undefined;
}

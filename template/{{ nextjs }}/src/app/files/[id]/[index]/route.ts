import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { LENGTH } from "@/lib/connection.ts";
import { route, streamed } from "@/lib/http.ts";
import { notFound } from "@/lib/problems.ts";
import { isSafeInline, spanOf } from "@/lib/serving.ts";

export const maxDuration = 300;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async (request, { id, index }) => {
    const { service } = await app();
    const file = await service.file(await caller(), `/files/${id}/${index}`);
    if (!file) throw notFound();
    const tag = `"${file.sha256}"`;
    const headers: Record<string, string> = {
      "Content-Type": file.content_type,
      ETag: tag,
      "Accept-Ranges": "bytes",
      "Cache-Control": "private, max-age=31536000, immutable",
      "Content-Disposition": isSafeInline(file.content_type) ? "inline" : "attachment",
      "Content-Security-Policy": "sandbox; default-src 'none'",
    };
    const known = (request.headers.get("if-none-match") ?? "").replaceAll("W/", "").split(",");
    if (known.some((each) => each.trim() === tag)) {
      return new Response(null, { status: 304, headers });
    }
    const span = spanOf(request.headers.get("range"), file.size);
    headers[LENGTH] = String(span ? span.end - span.start : file.size);
    if (span) headers["Content-Range"] = `bytes ${span.start}-${span.end - 1}/${file.size}`;
    const chunks = await service.storage.get(file.key, span);
    return new Response(streamed(chunks), { status: span ? 206 : 200, headers });
  },
});

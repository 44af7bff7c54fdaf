/** The one file of a multipart form, as it comes: an upload of any size in constant memory. */
import { make } from "multipasta";
import { limitedBody, tooLarge } from "./http.ts";
import { invalid, Problem } from "./problems.ts";
import type { Chunks } from "./storage.ts";

/** Bytes that the form may have around the file. */
export const FORM_BYTES = 2 ** 20;

/**
 * The file in the form's field `file`, at most so many bytes.
 *
 * @throws Problem 400 no form, 413 too large, 422 no such file: also while the chunks are read.
 */
export async function formFile(
  request: Request,
  most: number,
): Promise<{ type: string; chunks: Chunks }> {
  // Another kind of form holds no files.
  const multipart = request.headers.get("content-type")?.startsWith("multipart/form-data");
  if (!multipart) throw invalid("file", "must be a file");
  const pending: Uint8Array[] = [];
  let type: string | undefined;
  let failed = false;
  const parser = make({
    headers: Object.fromEntries(request.headers),
    isFile: () => true, // every part is read as it comes
    onField: () => undefined,
    onFile: ({ headers }) => {
      if (!isTheFile(headers) || type !== undefined) return () => undefined;
      type = String(headers["content-type"] ?? "");
      return (chunk) => chunk && pending.push(chunk);
    },
    onError: () => {
      failed = true;
    },
    onDone: () => undefined,
  });
  const body = limitedBody(request, most + FORM_BYTES);

  /** Read on; false at the end of the form. */
  async function read(): Promise<boolean> {
    const { done, value } = await body.next();
    try {
      if (done) parser.end();
      else parser.write(value);
    } catch {
      failed = true; // a name that is no text
    }
    if (failed) throw new Problem(400, "Not a form", "The body cannot be read as a form.");
    return !done;
  }

  async function* chunks() {
    let size = 0;
    for (let more = true; more; more = await read()) {
      for (const chunk of pending.splice(0)) {
        size += chunk.byteLength;
        if (size <= most) yield chunk; // what is too large is read to its end, as in limitedBody
      }
    }
    size += pending.reduce((sum, chunk) => sum + chunk.byteLength, 0);
    if (size > most) throw tooLarge(most);
    yield* pending;
  }

  while (type === undefined && (await read()));
  if (type === undefined) throw invalid("file", "must be a file");
  const printable = /^[\x20-\x7e]{1,255}$/.test(type);
  return { type: printable ? type : "application/octet-stream", chunks: chunks() };
}

/** Read here, since the parser understands no file's name beyond Latin-1: not that of 😀.png. */
function isTheFile(headers: Record<string, unknown>): boolean {
  const disposition = String(headers["content-disposition"]);
  return /;\s*name="?file"?\s*(;|$)/i.test(disposition) && /;\s*filename\*?=/i.test(disposition);
}

/** Does one thing to a project's storage: PROJECT URL put|get|break|late|delete|check [arguments]. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [project = "", url = "", what = "", key = "", ...more] = process.argv.slice(2);
const { openStorage } = await import(pathToFileURL(join(project, "src/lib/storage.ts")).href);
const storage = await openStorage(url);
const MEBIBYTE = 2 ** 20;

let peak = 0;
const before = process.memoryUsage.rss();

async function* mebibytes(count: number, breaks = false) {
  for (let index = 0; index < count; index += 1) {
    if (breaks && index === count - 1) throw new Error("the source broke");
    yield Buffer.alloc(MEBIBYTE, index % 251);
    peak = Math.max(peak, process.memoryUsage.rss());
  }
}

async function act(): Promise<object> {
  switch (what) {
    case "put":
    case "break": {
      const body = mebibytes(Number(more[0]), what === "break");
      const stored = await storage.put(key, body, "application/octet-stream");
      return { ...stored, growth: Math.max(peak, process.memoryUsage.rss()) - before };
    }
    case "late": {
      const limit = AbortSignal.timeout(500);
      return storage.put(key, mebibytes(Number(more[0])), "application/octet-stream", limit);
    }
    case "get": {
      const [start, end] = more.map(Number);
      const span = more.length > 0 ? { start, end } : undefined;
      const digest = createHash("sha256");
      let size = 0;
      for await (const chunk of await storage.get(key, span)) {
        digest.update(chunk);
        size += chunk.byteLength;
      }
      return { size, sha256: digest.digest("hex") };
    }
    case "delete":
      await storage.delete(key);
      return {};
    default:
      await storage.check();
      return {};
  }
}

try {
  console.log(JSON.stringify(await act()));
} catch (error) {
  console.log(JSON.stringify({ error: String(error) }));
}

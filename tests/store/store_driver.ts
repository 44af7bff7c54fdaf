/** A project's store on standard input and output: PROJECT URL; one call a line, side by side. */
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [project = "", url = ""] = process.argv.slice(2);
const load = (name: string) => import(pathToFileURL(join(project, "src/lib", name)).href);
const { openDatabase } = await load("database.ts");
const { Store } = await load("store.ts");
const { Queue } = await load("queue.ts");
const { UploadStore } = await load("upload-store.ts");
const database = openDatabase(url);
const parts = {
  store: new Store(database),
  queue: new Queue(database),
  uploads: new UploadStore(database),
};

interface Call {
  id: number;
  part: keyof typeof parts;
  name: string;
  given: unknown[];
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, part, name, given }: Call = JSON.parse(line);
  const done = (said: object) => console.log(JSON.stringify({ id, ...said }));
  // What is null here was left out there.
  const left = given.map((value) => value ?? undefined);
  parts[part][name](...(name === "add" ? left : given)).then(
    (value: unknown) => done({ value: value ?? null }),
    (error: Error & { retryAfter?: number }) =>
      done({ error: error.constructor.name, words: error.message, after: error.retryAfter ?? 0 }),
  );
}

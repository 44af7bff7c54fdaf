/** Stores one output as a project does: PROJECT; what to do comes as JSON on standard input. */
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const [project = ""] = process.argv.slice(2);
const load = (name: string) => import(pathToFileURL(join(project, "src/lib", name)).href);
const { storeOutput } = await load("outputs.ts");
const { openStorage } = await load("storage.ts");
const { folder, output, kind, allowed, maxBytes } = JSON.parse(await text(process.stdin));

async function stored(): Promise<object> {
  const { signal } = new AbortController();
  try {
    const options = { storage: await openStorage(folder), allowed, maxBytes, signal };
    return await storeOutput("id", output, kind, options);
  } catch (error) {
    const { constructor, message } = error as Error;
    return { error: constructor.name, words: message };
  }
}

const said = JSON.stringify(await stored());
// connections that stand still would keep it
process.stdout.write(said, () => process.exit());

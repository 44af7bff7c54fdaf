/** A state machine on standard input and output: SOURCE; one call a line, answered in order. */
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const state = await import(pathToFileURL(process.argv[2] ?? "").href);

for await (const line of createInterface({ input: process.stdin })) {
  const { name, given } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: state[name](...given) }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}

/** The models of this project: `npx tsx scripts/list-models.ts [--json]`. Spends nothing. */
import { REGISTRY } from "../src/lib/models.ts";
import { given } from "./command.ts";

const { values } = given("npx tsx scripts/list-models.ts [--json]", {
  options: { json: { type: "boolean" } },
});
const models = Object.values(REGISTRY).map((model) => ({
  key: model.key,
  ref: model.ref,
  kind: model.kind,
  mode: model.mode,
  output: model.output,
  seconds: model.seconds,
  input: model.fields.map((field) => field.name),
}));
if (values.json) {
  console.log(JSON.stringify(models, null, 2));
} else {
  for (const { key, ref, mode, output, seconds } of models) {
    console.log(`${key}: ${output}, ${mode}, ${seconds === null ? "unknown" : `${seconds} s`}`);
    console.log(`  ${ref}`);
  }
}

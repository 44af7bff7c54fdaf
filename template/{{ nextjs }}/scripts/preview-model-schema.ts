/**
 * What a model takes and gives: `npx tsx scripts/preview-model-schema.ts owner/name [--json]`.
 *
 * Asks Replicate and reads only: nothing is run and nothing billed. Needs REPLICATE_API_TOKEN.
 */
import { REGISTRY } from "../src/lib/models.ts";
import { given, misused, run } from "./command.ts";

interface Part {
  type?: string;
  default?: unknown;
  description?: string;
  "x-order"?: number;
}

interface Described {
  latest_version?: {
    id?: string;
    openapi_schema?: {
      components?: {
        schemas?: {
          Input?: { required?: string[]; properties?: Record<string, Part> };
          Output?: unknown;
        };
      };
    };
  } | null;
}

const { values, positionals } = given(
  "npx tsx scripts/preview-model-schema.ts owner/name [--json]",
  { options: { json: { type: "boolean" } } },
  1,
);
const [asked = ""] = positionals;
const name = REGISTRY[asked]?.ownerName ?? asked;
if (!/^[\w.-]+\/[\w.-]+$/.test(name)) {
  misused(`${name}: give owner/name, or one of ${Object.keys(REGISTRY).join(", ")}`);
}
const { Gateway } = await import("../src/lib/replicate.ts");
const { loadSettings } = await import("../src/lib/settings.ts");

await run(async () => {
  const gateway = new Gateway(loadSettings(process.env, false));
  const { latest_version: version }: Described = await gateway.describe(name);
  const { Input = null, Output = null } = version?.openapi_schema?.components?.schemas ?? {};
  if (values.json) {
    console.log(JSON.stringify({ version: version?.id ?? null, Input, Output }, null, 2));
    return 0;
  }
  console.log(`${name}, version ${version?.id ?? "not shown"}\ninput:`);
  const fields = Object.entries(Input?.properties ?? {});
  fields.sort(([, a], [, b]) => (a["x-order"] ?? 0) - (b["x-order"] ?? 0));
  for (const [field, part] of fields) {
    const byDefault = `default ${JSON.stringify(part.default ?? null)}`;
    const needed = Input?.required?.includes(field) ? "required" : byDefault;
    console.log(`  ${field}: ${part.type ?? "choice"}, ${needed}`);
    if (part.description) console.log(`      ${part.description.split(/\s+/).join(" ")}`);
  }
  console.log(`output: ${JSON.stringify(Output)}`);
  return 0;
});

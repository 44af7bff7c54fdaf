/** What a model is to this project: its typed input, the shape of its output, how it is run. */
import { z } from "zod";

export type Kind = "official" | "community";
export type OutputKind = "file" | "files" | "text" | "text-stream" | "json";
export type Mode = "run" | "webhook";

/** Official models that take less (in seconds) are waited for; the others report by webhook. */
export const RUN_SECONDS = 5;

/** One field of a model's input, as `GET /api/models` shows it. */
export interface InputField {
  name: string;
  type: "string" | "integer" | "number" | "boolean" | "file" | "array" | "object";
  required: boolean;
  default: unknown;
  minimum: number | null;
  maximum: number | null;
  enum: (string | number)[] | null;
}

/** A pinned model; `seconds` is what Replicate's own example took, null where it has none. */
export interface Model<Input extends z.ZodType = z.ZodType> {
  key: string;
  ownerName: string;
  kind: Kind;
  /** 64 hex digits; null for official models, which run only in their current version. */
  version: string | null;
  /** What Replicate is asked to run: `owner/name`, with its version unless official. */
  ref: string;
  output: OutputKind;
  seconds: number | null;
  mode: Mode;
  fields: InputField[];
  /** The names of the inputs that are files, or lists of them. */
  files: string[];
  input: Input;
}

type Pinned<Input extends z.ZodType> = Omit<Model<Input>, "ref" | "mode" | "fields" | "files">;

export function pinned<Input extends z.ZodType>(model: Pinned<Input>): Model<Input> {
  const quick = model.seconds !== null && model.seconds < RUN_SECONDS;
  return {
    ...model,
    ref: model.version === null ? model.ownerName : `${model.ownerName}:${model.version}`,
    // Community models start cold, so only official ones are waited for.
    mode: model.kind === "official" && quick ? "run" : "webhook",
    ...inputFields(model.input),
  };
}

/** A file as an input: `https://…`, `data:…` or a stored one of ours, `/files/<id>/<n>`. */
export function file() {
  return z
    .string()
    .regex(/^(https:\/\/|data:|\/files\/[0-9a-f]{32}\/[0-9]+$)/)
    .meta({ format: "uri" });
}

/** JSON Schema, as far as inputs need it. */
interface Schema {
  type?: string | string[];
  format?: string;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  enum?: (string | number | null)[];
  const?: string | number;
  anyOf?: Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
}

function inputFields(input: z.ZodType): Pick<Model, "fields" | "files"> {
  const schema = z.toJSONSchema(input, { io: "input", unrepresentable: "any" }) as Schema;
  const required = new Set(schema.required);
  const parts = Object.entries(schema.properties ?? {}).map(
    ([name, part]) => [name, notNull(part)] as const,
  );
  return {
    fields: parts.map(([name, part]) => inputField(name, part, required.has(name))),
    files: parts.filter(([, part]) => isFile(part) || isFile(part.items)).map(([name]) => name),
  };
}

function notNull(part: Schema): Schema {
  return { ...part, ...part.anyOf?.find((choice) => choice.type !== "null") };
}

function isFile(part: Schema | undefined): boolean {
  return part?.format === "uri";
}

function inputField(name: string, schema: Schema, required: boolean): InputField {
  const choices = schema.enum ?? (schema.const === undefined ? null : [schema.const]);
  const values = choices?.filter((choice) => choice !== null) ?? null;
  const type = [schema.type ?? "object"].flat().find((each) => each !== "null");
  return {
    name,
    type: fieldType(isFile(schema) ? "file" : type, values),
    required,
    default: schema.default ?? null,
    minimum: bound(schema.minimum),
    maximum: bound(schema.maximum),
    enum: values,
  };
}

function fieldType(type = "object", values: unknown[] | null): InputField["type"] {
  const whole = type === "number" && values !== null && values.every(Number.isInteger);
  return (whole ? "integer" : type) as InputField["type"];
}

/** zod bounds every integer by what JavaScript can count: that is no bound of the model's. */
function bound(value: number | undefined): number | null {
  return value === undefined || Math.abs(value) === Number.MAX_SAFE_INTEGER ? null : value;
}

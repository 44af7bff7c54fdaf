/** The inputs of the models: checked, and made up where a model is to be primed. */
import { isDeepStrictEqual } from "node:util";
import { REGISTRY } from "./models.ts";
import { storable } from "./prediction.ts";
import { invalid, invalidInput } from "./problems.ts";
import type { InputField, Model } from "./registry.ts";

const PIXEL =
  "data:image/png;base64," +
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOQk5MDAADWAGFLa3GBAAAAAElFTkSuQmCC";

/** The model of the registry, if it has that key. */
export function modelOf(key: string): Model | undefined {
  return Object.hasOwn(REGISTRY, key) ? REGISTRY[key] : undefined;
}

/**
 * The input as it is sent: only what was given, so that Replicate's own defaults hold.
 *
 * @throws Problem 422, field by field.
 */
export function checkedInput(model: Model, given: Record<string, unknown>) {
  for (const [name, value] of Object.entries(given)) {
    if (!isStorable(value)) {
      const detail = "holds a number or a character that JSON does not have";
      throw invalid(`input.${name}`, detail);
    }
  }
  const read = model.input.safeParse(given);
  if (!read.success) throw invalidInput(read.error, "input");
  return given;
}

function isStorable(value: unknown): boolean {
  try {
    return isDeepStrictEqual(storable(value), value);
  } catch {
    return false; // nested too deeply
  }
}

/** The files of ours, `/files/<id>/<n>`, in the value of an input that is a file or a list of them. */
export function ownFiles(value: unknown): string[] {
  return [value].flat().filter((url) => typeof url === "string" && url.startsWith("/")) as string[];
}

/** The cheapest input that the model takes. */
export function smallestInput(model: Model): Record<string, unknown> {
  const required = model.fields.filter((field) => field.required);
  return Object.fromEntries(required.map((field) => [field.name, smallest(field)]));
}

function smallest(field: InputField): unknown {
  if (field.enum) return field.enum[0];
  const values: Partial<Record<InputField["type"], unknown>> = {
    file: PIXEL,
    string: "a",
    boolean: false,
    array: [],
    object: {},
  };
  return values[field.type] ?? field.minimum ?? Math.min(1, field.maximum ?? 1);
}

import type { InputField } from "@/lib/registry.ts";

/** One field of a form: its control with label, bounds, and what is wrong with it. */
export function Field({ field, error }: { field: InputField; error: string }) {
  const id = `input-${field.name}`;
  const hint = hintOf(field);
  const name = field.name.charAt(0).toUpperCase() + field.name.slice(1).replaceAll("_", " ");
  return (
    <div className={field.type === "boolean" ? "field switch" : "field"}>
      <label htmlFor={id}>
        {name}
        {field.required && " *"}
      </label>
      <Control
        field={field}
        common={{
          id,
          name: field.name,
          required: field.required,
          "aria-invalid": error ? true : undefined,
          "aria-describedby": `${id}-hint ${id}-error`,
        }}
      />
      <span className="hint" id={`${id}-hint`} hidden={!hint}>
        {hint}
      </span>
      <span className="error" id={`${id}-error`} hidden={!error}>
        {error}
      </span>
    </div>
  );
}

interface Common {
  id: string;
  name: string;
  required: boolean;
  "aria-invalid": true | undefined;
  "aria-describedby": string;
}

function Control({ field, common }: { field: InputField; common: Common }) {
  const { type, minimum, maximum } = field;
  if (field.enum) {
    const open = field.default === null && !field.required;
    return (
      <select {...common} defaultValue={open ? "" : JSON.stringify(field.default)}>
        {open && <option value="" />}
        {field.enum.map((choice) => (
          <option key={choice} value={JSON.stringify(choice)}>
            {choice}
          </option>
        ))}
      </select>
    );
  }
  if (type === "boolean") {
    return <input {...common} type="checkbox" defaultChecked={field.default === true} />;
  }
  if (type === "file") return <input {...common} type="file" />;
  const value = typeof field.default === "string" ? field.default : JSON.stringify(field.default);
  const defaultValue = field.default === null ? "" : value;
  if (type === "integer" || type === "number") {
    return (
      <input
        {...common}
        type="number"
        step={type === "integer" ? 1 : "any"}
        min={minimum ?? undefined}
        max={maximum ?? undefined}
        defaultValue={defaultValue}
      />
    );
  }
  if (type !== "string" || /prompt|text|caption|template/.test(field.name)) {
    return <textarea {...common} defaultValue={defaultValue} />;
  }
  return <input {...common} type="text" defaultValue={defaultValue} />;
}

function hintOf({ type, minimum, maximum }: InputField): string {
  if (minimum !== null && maximum !== null) return `${minimum} to ${maximum}`;
  if (minimum !== null) return `at least ${minimum}`;
  if (maximum !== null) return `at most ${maximum}`;
  if (type === "array") return "a JSON list";
  return type === "object" ? "a JSON object" : "";
}

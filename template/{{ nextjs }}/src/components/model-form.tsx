import { type FormEvent, useEffect, useRef, useState } from "react";
import type { InputField } from "@/lib/registry.ts";
import {
  api,
  type FieldError,
  type ModelJson,
  type PredictionJson,
  Refused,
  reason,
} from "./api.ts";
import { Field } from "./field.tsx";

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

/** Models that were told that they will be needed, once for each page. */
const primed = new Set<string>();

/** The input form of one model; what it may not be is told beside each field. */
export function ModelForm(props: {
  model: ModelJson;
  onStarted: (prediction: PredictionJson) => void;
}) {
  const { model, onStarted } = props;
  const form = useRef<HTMLFormElement>(null);
  const touched = useRef(new Set<string>());
  // The idempotency key of a submit that may be sent again, and its body.
  const attempt = useRef<{ body: string; key: string }>(null);
  // Its files by their URL here: uploaded anew they would be another request.
  const uploads = useRef(new Map<File, string>());
  const [errors, setErrors] = useState<FieldError[]>([]);
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const [open, setOpen] = useState(false);

  useEffect(() => {
    if (errors.length) form.current?.querySelector<Control>("[aria-invalid=true]")?.focus();
  }, [errors]);

  const isFirst = (field: InputField) => field.required || field.name === "prompt";
  const rest = model.input.filter((field) => !isFirst(field));
  const shown = (field: InputField) => (
    <Field key={field.name} field={field} error={errorOf(field, errors)} />
  );

  function prime() {
    if (!model.prime || primed.has(model.key)) return;
    primed.add(model.key);
    api(`/api/models/${model.key}/prime`, { method: "POST" }).catch(() => {});
  }

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    setErrors([]);
    try {
      const input = await collect(model, touched.current, uploads.current);
      const body = JSON.stringify({ model: model.key, input });
      // The same words after a lost answer are the same request: it must not be billed twice.
      if (attempt.current?.body !== body) attempt.current = { body, key: newKey() };
      const headers = { "Idempotency-Key": attempt.current.key, Prefer: "respond-async" };
      onStarted(await api("/api/predictions", { method: "POST", body, headers }));
      settle();
    } catch (error) {
      if (error instanceof Refused) {
        settle();
        const about = error.errors ?? [];
        const others = about.filter((one) => !model.input.some((field) => isAbout(one, field)));
        const lines = others.map(({ field, detail }) => `${field}: ${detail}`);
        setErrors(about);
        setOpen((before) => before || rest.some((field) => errorOf(field, about)));
        setProblem(lines.join("; ") || (error.errors ? "" : error.message));
      } else {
        setProblem(`${reason(error)} Press Generate again: it will not run twice.`);
      }
    }
    setBusy(false);
  }

  /** The attempt was answered: the same words are a new request from now on. */
  function settle() {
    attempt.current = null;
    uploads.current.clear();
  }

  return (
    <form
      id="form"
      ref={form}
      noValidate
      onSubmit={submit}
      onFocus={prime}
      onInput={(event) => touched.current.add((event.target as Control).name)}
    >
      {model.input.filter(isFirst).map(shown)}
      <details
        id="more"
        hidden={rest.length === 0}
        open={open}
        onToggle={(event) => setOpen(event.currentTarget.open)}
      >
        <summary>More settings</summary>
        {rest.map(shown)}
      </details>
      <p id="problem" className="problem" role="alert" hidden={!problem}>
        {problem}
      </p>
      <button className="go" type="submit" disabled={busy}>
        Generate
      </button>
    </form>
  );
}

function isAbout(error: FieldError, field: InputField): boolean {
  return error.field.replace(/^input\./, "").split(".")[0] === field.name;
}

function errorOf(field: InputField, errors: FieldError[]): string {
  return errors.find((error) => isAbout(error, field))?.detail ?? "";
}

/** What was set: the rest is Replicate's own default. */
async function collect(
  model: ModelJson,
  touched: Set<string>,
  uploads: Map<File, string>,
): Promise<Record<string, unknown>> {
  const input: Record<string, unknown> = {};
  for (const field of model.input) {
    const control = document.getElementById(`input-${field.name}`) as Control;
    const empty = field.type !== "boolean" && control.value === "";
    if (empty || !(field.required || touched.has(field.name))) continue;
    input[field.name] = await given(field, control, uploads);
  }
  return input;
}

async function given(
  field: InputField,
  control: Control,
  uploads: Map<File, string>,
): Promise<unknown> {
  if (control instanceof HTMLInputElement) {
    if (field.type === "boolean") return control.checked;
    const file = control.files?.[0];
    if (file) {
      const url = uploads.get(file) ?? (await upload(file));
      uploads.set(file, url);
      return url;
    }
  }
  if (field.type === "string" && !field.enum) return control.value;
  try {
    return JSON.parse(control.value);
  } catch {
    return control.value;
  }
}

async function upload(file: File): Promise<string> {
  const form = new FormData();
  form.append("file", file);
  return (await api<{ url: string }>("/api/files", { method: "POST", body: form })).url;
}

function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

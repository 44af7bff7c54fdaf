// The page: a form for each model, made from its input fields, and what the caller has made.

const $ = (id) => document.getElementById(id);
const OVER = ["succeeded", "failed", "canceled", "aborted"];
const settled = (p) => OVER.includes(p.status) && p.storage !== "pending";
const human = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

let models = [];
let cursor = null;
let attempt = null; // the idempotency key of a submit that may be sent again, and its body
let uploads = new Map(); // its files by their URL here: uploaded anew they would be another request
let streams = 0;
const cards = new Map();
// A browser opens six connections to a host, in all of its tabs together.
const STREAMS = 2;

async function api(path, options = {}) {
  const headers = { "Content-Type": "application/json", ...options.headers };
  if (options.body instanceof FormData) delete headers["Content-Type"];
  const reply = await fetch(path, { ...options, headers });
  const body = reply.status === 204 ? null : await reply.json();
  if (!reply.ok) throw Object.assign(new Error(body.detail ?? body.title), { problem: body });
  return body;
}

const reason = (error) => (error.problem ? error.message : "The service did not answer.");

function tell(element, text) {
  if (element.textContent !== text) element.textContent = text; // an alert is read out when it is set
  element.hidden = !text;
}

// ---- the form

function control(field) {
  if (field.enum) {
    const select = document.createElement("select");
    if (field.default === null && !field.required) select.append(new Option("", ""));
    for (const value of field.enum) {
      select.append(new Option(value, JSON.stringify(value), false, value === field.default));
    }
    return select;
  }
  const long = field.type === "string" && /prompt|text|caption|template/.test(field.name);
  const element = document.createElement(
    long || ["array", "object"].includes(field.type) ? "textarea" : "input",
  );
  if (field.type === "boolean") {
    element.type = "checkbox";
    element.checked = field.default === true;
    return element;
  }
  if (field.type === "file") element.type = "file";
  else if (field.default !== null) {
    const plain = typeof field.default !== "object";
    element.value = plain ? field.default : JSON.stringify(field.default);
  }
  if (field.type === "integer" || field.type === "number") {
    element.type = "number";
    element.step = field.type === "integer" ? 1 : "any";
    if (field.minimum !== null) element.min = field.minimum;
    if (field.maximum !== null) element.max = field.maximum;
  }
  return element;
}

function hint(field) {
  const { minimum, maximum } = field;
  if (minimum !== null && maximum !== null) return `${minimum} to ${maximum}`;
  if (minimum !== null) return `at least ${minimum}`;
  if (maximum !== null) return `at most ${maximum}`;
  return { array: "a JSON list", object: "a JSON object" }[field.type] ?? "";
}

function fieldset(field) {
  const box = document.createElement("div");
  box.className = field.type === "boolean" ? "field switch" : "field";
  const element = control(field);
  element.id = `input-${field.name}`;
  element.name = field.name;
  element.required = field.required;
  const label = document.createElement("label");
  label.htmlFor = element.id;
  label.textContent = human(field.name) + (field.required ? " *" : "");
  box.append(label, element);
  const notes = { hint: hint(field), error: "" };
  for (const [kind, text] of Object.entries(notes)) {
    const note = document.createElement("span");
    note.className = kind;
    note.id = `${element.id}-${kind}`;
    note.textContent = text;
    note.hidden = !text;
    box.append(note);
  }
  element.setAttribute("aria-describedby", `${element.id}-hint ${element.id}-error`);
  element.addEventListener("input", () => (element.dataset.touched = "1"));
  return box;
}

const chosen = () => models.find((model) => model.key === $("model").value) ?? models[0];

function showForm() {
  const model = chosen();
  const first = (field) => field.required || field.name === "prompt";
  const rest = model.input.filter((field) => !first(field));
  $("fields").replaceChildren(...model.input.filter(first).map(fieldset));
  $("more-fields").replaceChildren(...rest.map(fieldset));
  $("more").hidden = rest.length === 0;
  $("more").open = false;
  tell($("problem"), "");
  const usual = model.seconds === null ? "" : ` A run takes about ${duration(model.seconds)}.`;
  const cold =
    model.kind === "official"
      ? " It is always warm."
      : " After a pause it starts cold, which can take minutes.";
  $("about").textContent = `${model.ref.split(":")[0]}.${usual}${cold}`;
  history.replaceState(null, "", `#${model.key}`);
}

const duration = (seconds) =>
  seconds < 90 ? `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;

async function value(field, element) {
  if (field.type === "boolean") return element.checked;
  if (field.type === "file") {
    const [file] = element.files;
    if (!uploads.has(file)) uploads.set(file, await upload(file));
    return uploads.get(file);
  }
  if (field.enum) return JSON.parse(element.value);
  if (field.type === "string") return element.value;
  try {
    return JSON.parse(element.value);
  } catch {
    return element.value;
  }
}

async function upload(file) {
  const form = new FormData();
  form.append("file", file);
  return (await api("/api/files", { method: "POST", body: form })).url;
}

async function collect(model) {
  const input = {};
  for (const field of model.input) {
    const element = $(`input-${field.name}`);
    const empty = field.type === "file" ? element.files.length === 0 : element.value === "";
    if (field.type !== "boolean" && empty) continue;
    if (element.dataset.touched || field.required) input[field.name] = await value(field, element);
  }
  return input;
}

function showErrors(errors) {
  for (const element of $("form").querySelectorAll("[aria-invalid]")) {
    element.removeAttribute("aria-invalid");
    tell($(`${element.id}-error`), "");
  }
  let firstWrong = null;
  const others = [];
  for (const { field, detail } of errors) {
    const element = $(`input-${field.replace(/^input\./, "").split(".")[0]}`);
    if (!element) {
      others.push(`${field}: ${detail}`);
      continue;
    }
    element.setAttribute("aria-invalid", "true");
    tell($(`${element.id}-error`), detail);
    if ($("more").contains(element)) $("more").open = true;
    firstWrong ??= element;
  }
  firstWrong?.focus();
  return others;
}

async function submit(event) {
  event.preventDefault();
  const button = $("form").querySelector(".go");
  button.disabled = true;
  tell($("problem"), "");
  showErrors([]);
  try {
    const model = chosen();
    const body = JSON.stringify({ model: model.key, input: await collect(model) });
    // The same words after a lost answer are the same request: it must not be billed twice.
    if (attempt?.body !== body) attempt = { body, key: newKey() };
    const headers = { "Idempotency-Key": attempt.key, Prefer: "respond-async" };
    const prediction = await api("/api/predictions", { method: "POST", body, headers });
    settle();
    show(prediction, { first: true });
  } catch (error) {
    const others = showErrors(error.problem?.errors ?? []);
    if (error.problem) settle();
    const text = error.problem
      ? others.join("; ") || (error.problem.errors ? "" : error.message)
      : `${reason(error)} Press Generate again: it will not run twice.`;
    tell($("problem"), text);
  }
  button.disabled = false;
}

/** The attempt was answered: the same words are a new request from now on. */
function settle() {
  attempt = null;
  uploads = new Map();
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- the results

const WORDS = {
  pending: ["Waiting for Replicate", ""],
  starting: ["Starting", "The model is being loaded. After a pause this can take minutes."],
  processing: ["Running", ""],
  succeeded: ["Storing the result", ""],
  failed: ["Failed", "bad"],
  canceled: ["Canceled", ""],
  aborted: ["Stopped before it started", ""],
};

function show(prediction, { first = false } = {}) {
  let card = cards.get(prediction.id);
  if (!card) {
    const element = $("card").content.cloneNode(true).firstElementChild;
    card = { element, prediction, text: "" };
    cards.set(prediction.id, card);
    element.querySelector(".cancel").addEventListener("click", () => act(card, "cancel"));
    element.querySelector(".delete").addEventListener("click", () => act(card, "delete"));
    if (first) $("results").prepend(element);
    else $("results").append(element);
    if (!settled(prediction)) follow(card);
  }
  card.prediction = prediction;
  draw(card);
  $("empty").hidden = cards.size > 0;
}

function draw(card) {
  const { element, prediction } = card;
  const done = settled(prediction);
  const state = element.querySelector(".state");
  const lost = prediction.status === "succeeded" && ["expired", "failed"].includes(prediction.storage);
  let [words, note] = WORDS[prediction.status];
  if (done && prediction.status === "succeeded") words = lost ? "Not stored" : "Done";
  const seconds = prediction.metrics.predict_seconds;
  if (done && seconds !== null) words += ` · ${duration(seconds)}`;
  if (!done) words += ` · ${elapsed(prediction)}`;
  state.textContent = words;
  state.className = `state ${lost || prediction.status === "failed" ? "bad" : done && words.startsWith("Done") ? "good" : ""}`;
  element.querySelector(".what").textContent = `${prediction.model} · ${when(prediction)}`;
  element.querySelector(".cancel").hidden = OVER.includes(prediction.status);
  element.querySelector(".delete").hidden = !done;
  const output = element.querySelector(".output");
  if (prediction.output !== null) {
    if (!card.drawn) output.replaceChildren(...rendered(prediction.output));
    card.drawn = true;
  } else if (card.text) output.replaceChildren(textBlock(card.text));
  else if (!done) output.replaceChildren(noteBlock(note === "bad" ? "" : note, true));
  else output.replaceChildren(noteBlock(prediction.error ?? WORDS[prediction.status][0]));
}

const when = (prediction) =>
  new Date(prediction.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

function elapsed(prediction) {
  return duration(Math.max(0, (Date.now() - Date.parse(prediction.created_at)) / 1000));
}

function noteBlock(text, waiting = false) {
  const note = document.createElement("div");
  note.className = "note";
  if (waiting) {
    const spinner = document.createElement("span");
    spinner.className = "spinner";
    note.append(spinner);
  }
  note.append(text);
  return note;
}

function textBlock(text, kind = "text") {
  const block = document.createElement("pre");
  block.className = kind;
  block.tabIndex = 0;
  block.textContent = text;
  return block;
}

const mine = (item) => typeof item === "string" && item.startsWith("/files/");

function rendered(output) {
  if (mine(output)) return [media(output)];
  if (Array.isArray(output) && output.length && output.every(mine)) {
    if (output.length === 1) return [media(output[0])];
    const several = document.createElement("div");
    several.className = "several";
    several.append(...output.map(media));
    return [several];
  }
  if (typeof output === "string") return [textBlock(output)];
  return [textBlock(JSON.stringify(output, null, 2), "json")];
}

function media(url) {
  const place = document.createElement("div");
  shown(url).then(
    (element) => place.replaceWith(element),
    () => place.replaceWith(noteBlock("The file cannot be read now.")),
  );
  return place;
}

/** A picture, sound, video or link, by the stored content type. */
async function shown(url) {
  const reply = await fetch(url);
  reply.body?.cancel();
  if (!reply.ok) throw new Error(reply.statusText);
  const type = reply.headers.get("content-type") ?? "";
  const kinds = { image: "img", audio: "audio", video: "video" };
  const kind = type.startsWith("image/svg") ? undefined : kinds[type.split("/")[0]];
  const element = document.createElement(kind ?? "a");
  if (kind === undefined) {
    return Object.assign(element, { href: url, textContent: `Download (${type})` });
  }
  element.src = url;
  if (kind === "img") element.alt = "The result, in full size behind this link";
  else element.controls = true;
  return kind === "img" ? linked(url, element) : element;
}

function linked(url, element) {
  const link = Object.assign(document.createElement("a"), { href: url, target: "_blank" });
  link.className = "full";
  link.append(element);
  return link;
}

/** Follow a prediction until it is over. */
async function follow(card) {
  const clock = setInterval(() => draw(card), 1000);
  if (streams < STREAMS) await streamed(card);
  while (!settled(card.prediction) && card.element.isConnected) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await act(card, "look");
  }
  clearInterval(clock);
  if (!settled(card.prediction)) return;
  const words = card.element.querySelector(".state").textContent;
  $("status").textContent = `${card.prediction.model}: ${words}`;
}

/** Show it by server-sent events, until they end or break. */
async function streamed(card) {
  streams += 1;
  const source = new EventSource(`/api/predictions/${card.prediction.id}/events`);
  await new Promise((resolve) => {
    source.addEventListener("prediction", (event) => show(JSON.parse(event.data)));
    source.addEventListener("output", (event) => {
      card.text += JSON.parse(event.data);
      draw(card);
    });
    source.addEventListener("done", (event) => {
      show(JSON.parse(event.data));
      resolve();
    });
    source.onerror = resolve;
  });
  source.close();
  streams -= 1;
}

/** Look at, cancel or delete a prediction; what went wrong stands on its card. */
async function act(card, what) {
  const path = `/api/predictions/${card.prediction.id}`;
  const problem = card.element.querySelector(".problem");
  try {
    if (what === "delete") await api(path, { method: "DELETE" });
    else if (what === "cancel") show(await api(`${path}/cancel`, { method: "POST" }));
    else show(await api(path));
    tell(problem, "");
    if (what === "delete") drop(card);
  } catch (error) {
    if (error.problem?.status === 404) drop(card); // deleted in another tab
    else tell(problem, reason(error));
  }
}

function drop(card) {
  if (card.element.contains(document.activeElement)) $("made-title").focus();
  card.element.remove();
  cards.delete(card.prediction.id);
  $("empty").hidden = cards.size > 0;
}

async function older() {
  const page = await api(`/api/predictions${cursor ? `?cursor=${cursor}` : ""}`);
  page.results.forEach((prediction) => show(prediction));
  cursor = page.next_cursor;
  $("older").hidden = cursor === null;
}

async function start() {
  models = (await api("/api/models")).results;
  $("model").replaceChildren(...models.map((model) => new Option(model.key, model.key)));
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (models.some((model) => model.key === wanted)) $("model").value = wanted;
  showForm();
  $("model").addEventListener("change", showForm);
  $("form").addEventListener("submit", submit);
  $("older").addEventListener("click", () => {
    tell($("trouble"), "");
    older().catch((error) => tell($("trouble"), reason(error)));
  });
  const primed = new Set();
  $("form").addEventListener("focusin", () => {
    const model = chosen();
    if (!model.prime || primed.has(model.key)) return;
    primed.add(model.key);
    api(`/api/models/${model.key}/prime`, { method: "POST" }).catch(() => {});
  });
  await older();
}

start().catch((error) => {
  tell($("problem"), `The page could not be loaded: ${reason(error)}`);
});

// The calls of the JavaScript SDK 1.4.0, as people write them, against the emulator.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const sdk = process.env.SDK; // the folder that npm installed into
const require = createRequire(pathToFileURL(join(sdk, "package.json")));
const Replicate = require("replicate");

const BASE = process.env.EMULATOR;
const COMMUNITY = process.env.COMMUNITY;
const OFFICIAL = "black-forest-labs/flux-schnell";
const TEXT = "meta/meta-llama-3-8b-instruct";
const PICTURE = "data:image/png;base64,iVBORw0KGgo=";
const [owner, name] = OFFICIAL.split("/");
const [communityName, version] = COMMUNITY.split(":");
const options = { auth: "r8_test", baseUrl: `${BASE}/v1` };
const replicate = new Replicate(options);

async function control(path, body, method) {
  const answer = await fetch(`${BASE}/_emulator/${path}`, {
    method: method ?? (body ? "POST" : "GET"),
    body: body && JSON.stringify(body),
  });
  return answer.json();
}

async function withSettings(changes, work) {
  const before = await control("settings");
  await control("settings", changes);
  try {
    return await work();
  } finally {
    await control("settings", before);
  }
}

async function refused(status, work) {
  try {
    await work();
  } catch (error) {
    assert.equal(error.response?.status, status, error);
    return JSON.parse(/: (\{.*\})\.$/s.exec(error.message)[1]);
  }
  assert.fail("not refused");
}

const bytes = async (output) => Buffer.from(await (await output.blob()).arrayBuffer());
const isPng = (buffer) => buffer.subarray(1, 4).toString() === "PNG";

const checks = {
  async sdk_version() {
    const about = JSON.parse(readFileSync(join(sdk, "node_modules/replicate/package.json")));
    assert.equal(about.version, "1.4.0");
  },
  async models_get() {
    const model = await replicate.models.get(owner, name);
    const { schemas } = model.latest_version.openapi_schema.components;
    assert.deepEqual(schemas.Input.required, ["prompt"]);
    assert.equal(model.is_official, true);
  },
  async models_list() {
    const { results } = await replicate.models.list();
    assert(results.some((model) => model.name === name));
  },
  async models_search() {
    const { results } = await replicate.models.search("flux");
    assert.deepEqual(results.map((model) => model.name), [name]);
  },
  async versions_list() {
    const { results } = await replicate.models.versions.list(...communityName.split("/"));
    assert.deepEqual(results.map((one) => one.id), [version]);
  },
  async versions_get() {
    const got = await replicate.models.versions.get(...communityName.split("/"), version);
    assert.equal(got.openapi_schema.components.schemas.Output.format, "uri");
  },
  async versions_of_an_official_model_404() {
    const body = await refused(404, () => replicate.models.versions.list(owner, name));
    assert.match(body.detail, /official model and does not expose a list of versions/);
  },
  async run_official() {
    const output = await replicate.run(OFFICIAL, { input: { prompt: "a fox", num_outputs: 2 } });
    assert.equal(output.length, 2);
    const file = await fetch(output[1]);
    assert(isPng(Buffer.from(await file.arrayBuffer())));
  },
  async run_community() {
    const output = await replicate.run(COMMUNITY, { input: { image: PICTURE } });
    assert.equal((await fetch(output)).headers.get("content-type"), "image/png");
  },
  async run_longer_than_the_wait() {
    await withSettings({ run_seconds: 2 }, async () => {
      const wait = { mode: "block", timeout: 1 };
      assert((await replicate.run(OFFICIAL, { input: { prompt: "slow" }, wait })).length);
    });
  },
  async run_by_polling() {
    const seen = [];
    const wait = { mode: "poll", interval: 50 };
    await replicate.run(COMMUNITY, { input: { image: PICTURE }, wait }, (prediction) =>
      seen.push(prediction.status)
    );
    assert.deepEqual([...new Set(seen)], ["starting", "processing", "succeeded"]);
  },
  async run_with_a_file() {
    await replicate.run(COMMUNITY, { input: { image: Buffer.from("a picture") } });
    const [{ input }] = await control("predictions");
    assert(input.image.startsWith(`${BASE}/v1/files/`));
  },
  async run_that_fails() {
    await control("faults", { fault: "fail", error: "CUDA out of memory" });
    const run = replicate.run(OFFICIAL, { input: { prompt: "x" } });
    await assert.rejects(run, /Prediction failed: CUDA out of memory/);
  },
  async create_get_and_wait() {
    const made = await replicate.predictions.create({ version, input: { image: PICTURE } });
    assert.equal(made.status, "starting");
    const done = await replicate.wait(made, { interval: 50 });
    assert.equal(done.status, "succeeded");
    assert.deepEqual((await replicate.predictions.get(made.id)).output, done.output);
  },
  async create_that_waits() {
    const input = { prompt: "x" };
    const made = await replicate.predictions.create({ model: OFFICIAL, input, wait: 5 });
    assert.equal(made.status, "succeeded");
    assert.equal(made.version, "hidden");
  },
  async list_in_pages_with_webhooks() {
    await withSettings({ page_size: 2 }, async () => {
      for (const n of ["0", "1", "2"]) {
        const webhook = `http://127.0.0.1:9/${n}`;
        await replicate.predictions.create({ model: OFFICIAL, input: { prompt: n }, webhook });
      }
      const found = [];
      for await (const page of replicate.paginate(replicate.predictions.list)) {
        found.push(...page);
      }
      assert.deepEqual(found.slice(0, 3).map((p) => p.input.prompt), ["2", "1", "0"]);
      assert.deepEqual(found.slice(0, 3).map((p) => p.webhook.slice(-2)), ["/2", "/1", "/0"]);
    });
  },
  async cancel() {
    await control("faults", { fault: "hang" });
    const made = await replicate.predictions.create({ model: OFFICIAL, input: { prompt: "x" } });
    assert.equal((await replicate.predictions.cancel(made.id)).status, "canceled");
    assert.equal((await replicate.predictions.cancel(made.id)).status, "canceled");
  },
  async cancel_after() {
    await withSettings({ minimum_cancel_after: 1 }, async () => {
      await control("faults", { fault: "hang" });
      const answer = await replicate.request(`/models/${OFFICIAL}/predictions`, {
        method: "POST",
        headers: { "Cancel-After": "1s" },
        data: { input: { prompt: "x" } },
      });
      const done = await replicate.wait(await answer.json(), { interval: 100 });
      assert.equal(done.status, "canceled");
    });
  },
  async webhook_and_secret() {
    const { key } = await replicate.webhooks.default.secret.get();
    let server;
    const arrived = new Promise((resolve) => {
      server = createServer(async (request, response) => {
        const parts = [];
        for await (const part of request) parts.push(part);
        response.end();
        resolve({ headers: request.headers, body: Buffer.concat(parts).toString() });
      });
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    await replicate.predictions.create({
      model: OFFICIAL,
      input: { prompt: "Ünïcode" },
      webhook: `http://127.0.0.1:${server.address().port}/`,
      webhook_events_filter: ["completed"],
    });
    const webhook = await arrived;
    server.closeAllConnections();
    server.close();
    assert.equal(await Replicate.validateWebhook(webhook, key), true);
    webhook.body += " ";
    assert.equal(await Replicate.validateWebhook(webhook, key), false);
  },
  async files() {
    const file = await replicate.files.create(Buffer.from("hello"), { n: 1 });
    assert.deepEqual([file.size, file.metadata], [5, { n: 1 }]);
    assert.match((await replicate.files.get(file.id)).checksums.sha256, /^2cf24dba/);
    assert((await replicate.files.list()).results.some((one) => one.id === file.id));
    assert.equal(await replicate.files.delete(file.id), true);
    await refused(404, () => replicate.files.get(file.id));
  },
  async file_too_large_413() {
    await withSettings({ max_upload_bytes: 4 }, async () => {
      const body = await refused(413, () => replicate.files.create(Buffer.from("hello")));
      assert.equal(body.detail, "Files must be less than 100MB in size");
    });
  },
  async file_outputs() {
    await withSettings({ data_uris: true }, async () => {
      const [output] = await replicate.run(OFFICIAL, { input: { prompt: "x" } });
      assert(isPng(await bytes(output)));
    });
  },
  async text_is_streamed() {
    const events = [];
    for await (const event of replicate.stream(TEXT, { input: { prompt: "two\nlines" } })) {
      events.push(event);
    }
    assert.equal(events.at(-1).event, "done");
    const text = events.join("");
    assert(text.startsWith("You asked: two\nlines\n\n"));
    assert.equal(text, (await replicate.predictions.list()).results[0].output.join(""));
  },
  async deployments() {
    const hardware = { hardware: "cpu", min_instances: 0, max_instances: 1 };
    await replicate.deployments.create({ name: "fast", model: OFFICIAL, version: "", ...hardware });
    const got = await replicate.deployments.get("emulator", "fast");
    assert.equal(got.current_release.model, OFFICIAL);
    assert((await replicate.deployments.list()).results.some((one) => one.name === "fast"));
    const input = { prompt: "x" };
    const made = await replicate.deployments.predictions.create("emulator", "fast", {
      input,
      wait: true,
    });
    assert.deepEqual([made.status, made.deployment], ["succeeded", "emulator/fast"]);
  },
  async trainings() {
    const made = await replicate.trainings.create("ostris", "flux-dev-lora-trainer", "e440909d", {
      destination: "emulator/mine",
      input: { input_images: "https://example.com/a.zip" },
    });
    assert((await replicate.trainings.list()).results.some((one) => one.id === made.id));
    assert.equal((await replicate.trainings.cancel(made.id)).status, "canceled");
    assert.equal((await replicate.trainings.get(made.id)).status, "canceled");
  },
  async account_and_hardware() {
    assert.equal((await replicate.accounts.current()).type, "organization");
    assert((await replicate.hardware.list()).some((one) => one.sku === "cpu"));
  },
  async unauthenticated_401() {
    const stranger = new Replicate({ ...options, auth: "nonsense" });
    assert.deepEqual(await refused(401, () => stranger.accounts.current()), {
      title: "Unauthenticated",
      detail: "You did not pass a valid authentication token",
      status: 401,
    });
  },
  async no_credit_402() {
    await control("faults", { fault: "create_402" });
    const run = () => replicate.run(OFFICIAL, { input: { prompt: "x" } });
    assert.equal((await refused(402, run)).title, "Insufficient credit");
  },
  async unknown_404() {
    await refused(404, () => replicate.models.get("no", "such"));
    await refused(404, () => replicate.predictions.get("none"));
    await refused(404, () => replicate.run(communityName, { input: {} }));
  },
  async invalid_input_422() {
    const body = await refused(422, () => replicate.run(OFFICIAL, { input: {} }));
    assert.deepEqual(body, {
      title: "Input validation failed",
      detail: "- input: prompt is required\n",
      status: 422,
      invalid_fields: [{ type: "required", field: "input", description: "prompt is required" }],
    });
  },
  async invalid_version_422() {
    const { latest_version: shown } = await replicate.models.get(owner, name);
    for (const id of ["0".repeat(64), shown.id, communityName]) {
      const create = () => replicate.predictions.create({ version: id, input: {} });
      assert.equal((await refused(422, create)).title, "Invalid version or not permitted");
    }
  },
  async throttled_429() {
    // It tries six times, and would have succeeded the seventh.
    await control("faults", { fault: "create_429", times: 6 });
    const body = await refused(429, () => replicate.run(OFFICIAL, { input: { prompt: "x" } }));
    assert.equal(body.retry_after, 5);
    assert.deepEqual(await control("faults"), []);
  },
};

const results = {};
for (const [check, work] of Object.entries(checks)) {
  await control("faults", undefined, "DELETE");
  try {
    await work();
    results[check] = null;
  } catch (error) {
    results[check] = error.stack;
  }
}
console.log(JSON.stringify(results));

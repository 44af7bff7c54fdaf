/** The state machine: whatever order Replicate's words come in, the same end. */
import { expect, test } from "vitest";
import { newRow, now, type Row, storable } from "@/lib/prediction.ts";
import { fail, nextStep, observe, parseRemote, rowIdOf } from "@/lib/state.ts";

const ID = "0123456789abcdef".repeat(2);

function row(changes: Partial<Row> = {}): Row {
  const given = { id: ID, owner: "me", address: "::1", model: "m", ref: "o/m", mode: "webhook" };
  const made = newRow({
    ...given,
    input: {},
    deployment: null,
    idempotency_key: null,
    created_at: 1_000,
  });
  return { ...made, ...changes };
}

function said(status: string, more: object = {}) {
  return parseRemote({ id: "abc", status, ...more });
}

test("late, repeated and out-of-order words end in the same state", () => {
  const words = [
    said("starting"),
    said("processing"),
    said("succeeded", { output: "x" }),
    said("failed", { error: "late" }),
  ];
  for (const early of words) {
    const first = observe(row(), said("succeeded", { output: "x" }), 1);
    expect(observe(first, early, 2)).toEqual(first);
  }
});

test("a status never goes back", () => {
  const processing = observe(row(), said("processing"), 1);
  expect(observe(processing, said("starting"), 2).status).toBe("processing");
});

test("words about another prediction change nothing", () => {
  const mine = row({ replicate_id: "mine" });
  expect(observe(mine, said("failed"), 1)).toBe(mine);
});

test.each([
  [{ output: ["u"] }, "pending"],
  [{ output: null }, "none"],
  [{ output: null, data_removed: true }, "expired"],
] as const)("a success with %j is %s", (more, storage) => {
  expect(observe(row(), said("succeeded", more), 1).storage).toBe(storage);
});

test("an empty answer of Replicate's is refused", () => {
  for (const data of [null, [], {}, { id: 1, status: "starting" }, { id: "a", status: "done" }]) {
    expect(() => parseRemote(data)).toThrow(TypeError);
  }
});

test.each([
  [{}, "create"],
  [{ sent_at: 1 }, "adopt"],
  [{ ask_at: now() + 60 }, "rest"],
  [{ replicate_id: "abc" }, "ask"],
  [{ replicate_id: "abc", cancel_requested: true }, "cancel"],
  [{ cancel_requested: true }, "cancel"],
  [{ status: "succeeded", storage: "pending" }, "store"],
  [{ status: "failed", deleted_at: 1 }, "erase"],
  [{ status: "failed" }, "rest"],
] as const)("what is next for %j: %s", (changes, step) => {
  expect(nextStep(row(changes), now())).toBe(step);
});

test("what is over does not fail any more", () => {
  const over = row({ status: "canceled" });
  expect(fail(over, "late", 1)).toBe(over);
});

test("the row's id is read from our webhook's URL only", () => {
  expect(rowIdOf(`https://us.example/api/webhooks/replicate?prediction=${ID}`)).toBe(ID);
  for (const other of [null, 1, "", "https://us.example/?prediction=x", `?prediction=${ID}0`]) {
    expect(rowIdOf(other)).toBeNull();
  }
});

test("what no database takes is made storable", () => {
  const value = { a: ["\0x", "\ud800", Number.POSITIVE_INFINITY, 1, null], "b\0": true };
  expect(storable(value)).toEqual({ a: ["x", "\ufffd", null, 1, null], b: true });
});

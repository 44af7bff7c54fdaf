/** The guard bites: what it refuses is planted, and seen refused. */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";

const file_path = resolve("src/app/planted.ts");

function hook(program: string, tool_input: object, ...options: string[]) {
  const input = JSON.stringify({ tool_name: "Write", tool_input });
  return spawnSync(process.execPath, [program, ...options], { input, encoding: "utf8" });
}

test("an edit that imports the SDK is refused, and an ordinary one is not", () => {
  const bad = hook("guard/check.ts", { file_path, content: 'import "replicate";' }, "--hook");
  expect(bad.stderr).toContain("src/app/planted.ts:1: [gateway-only]");
  expect(bad.status).toBe(2);
  const good = hook("guard/check.ts", { file_path, content: 'import "node:fs";' }, "--hook");
  expect(good.status).toBe(0);
});

test("a command that may spend money wants a person, and a reader does not", () => {
  const paid = hook("guard/spend.ts", { command: "npx tsx x.ts --confirm-spend" }, "ask");
  expect(JSON.parse(paid.stdout).hookSpecificOutput.permissionDecision).toBe("ask");
  expect(hook("guard/spend.ts", { command: "ls scripts" }, "ask").stdout).toBe("");
});

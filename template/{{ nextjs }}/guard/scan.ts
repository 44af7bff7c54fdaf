/** The scan of the guard: texts of the project through ast-grep, by the rules of rules.yml. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, sep } from "node:path";

export const CODE = /\.[cm]?[jt]sx?$/;
const RULES = join(import.meta.dirname, "rules.yml");
/** Those that hold for text that is no code, too. */
const TEXT_RULES = new Set(["gateway-only", "unpinned-model"]);
/** Every file is one language. */
const CONFIG = JSON.stringify({ ruleDirs: [], languageGlobs: { tsx: ["*"] } });
/** Without a finding here, rules or binary are broken. */
const CANARY = "canary.ts";
/** In bytes; what is much larger ast-grep leaves out, and says nothing. */
const LARGEST = 2_000_000;

/** One match of a rule: `line` counts from 1, `path` is relative to the project. */
export interface Finding {
  path: string;
  line: number;
  rule: string;
  why: string;
  text: string;
}

/** What ast-grep prints of a match. */
interface Match {
  file: string;
  range: { start: { line: number } };
  ruleId: string;
  message: string;
  text: string;
}

/** The binary of this platform's package: npm's launcher would cost more than the scan. */
function astGrep(): string {
  const { platform, arch } = process;
  const suffix = { linux: "-gnu", win32: "-msvc" }[platform as string] ?? "";
  const name = `@ast-grep/cli-${platform}-${arch}${suffix}`;
  const ours = createRequire(import.meta.url);
  const its = createRequire(ours.resolve("@ast-grep/cli/package.json"));
  const file = platform === "win32" ? "ast-grep.exe" : "ast-grep";
  return join(dirname(its.resolve(`${name}/package.json`)), file);
}

/** Text that is no code as code: in the same lines, its words and `key: value` pairs. */
function literals(text: string): string {
  const lines = text.split("\n").map((line) => {
    const pair = /([\w.-]+)["']?\s*[:=](?!\/\/)\s*["']?([^\s"',;{}()<>[\]]+)/g;
    const pairs = [...line.matchAll(pair)].map(([, key = "", value]) => ({ [key]: value }));
    const known = new Set(pairs.flatMap((one) => Object.entries(one).flat()));
    const words = new Set(line.match(/[^\s"',;={}()<>[\]]+/g));
    return `${JSON.stringify([...pairs, ...words.difference(known)])};`;
  });
  return lines.join("\n");
}

/** The text under which ast-grep sees a file of the project: deaf to `ast-grep-ignore`. */
function mirrored(path: string, text: string): string {
  if (!CODE.test(path)) return literals(text.slice(0, LARGEST));
  if (text.length > LARGEST) throw new Error(`${path} is too large to be checked: split it`);
  if (!text.isWellFormed()) throw new Error(`${path} holds half a letter`);
  // a path that says "webhook" is context for the rules, too
  return `${text.replaceAll("ast-grep-ignore", "ast-grep_ignore")}\n// ${path}`;
}

/**
 * Findings in `sources` (relative path to text), scanned in a mirror of the project.
 *
 * The mirror lets a rule's `ignores` see the real path of text that is not on disk yet.
 */
export function scan(sources: Map<string, string>): Finding[] {
  if (sources.size === 0) return [];
  const folder = mkdtempSync(join(tmpdir(), "guard-"));
  try {
    writeFileSync(join(folder, "sgconfig.yml"), CONFIG);
    for (const [path, text] of [...sources, [CANARY, 'import "replicate";'] as const]) {
      const file = join(folder, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, mirrored(path, text));
    }
    const options = ["--rule", RULES, "--json=compact", "--no-ignore", "hidden", "."];
    const done = spawnSync(astGrep(), ["scan", ...options], {
      cwd: folder,
      encoding: "utf8",
      maxBuffer: 1 << 30,
    });
    if (done.error) throw done.error;
    // 1: something was found
    if (done.status === null || done.status > 1 || !done.stdout.startsWith("[")) {
      throw new Error(done.stderr.trim() || `ast-grep ended with ${done.status}`);
    }
    const found = (JSON.parse(done.stdout) as Match[]).map((match) => ({
      path: match.file.replaceAll(sep, "/").replace(/^\.\//, ""),
      line: match.range.start.line + 1,
      rule: match.ruleId.replace(/-ts$/, ""),
      why: match.message,
      text: match.text,
    }));
    if (!found.some(({ path }) => path === CANARY)) {
      throw new Error(`${RULES} finds nothing any more`);
    }
    return found.filter(
      ({ path, rule }) => sources.has(path) && (CODE.test(path) || TEXT_RULES.has(rule)),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

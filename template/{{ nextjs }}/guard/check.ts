/**
 * Refuse the known Replicate mistakes: one check for people, hooks, commits and CI.
 *
 *     node guard/check.ts            the whole project
 *     node guard/check.ts FILE ...   these files (before a commit)
 *     node guard/check.ts --hook     a call of Claude Code's, as JSON on stdin
 *
 * Exit 0: nothing found. 1: findings, on stdout. 2: a hook's call is refused, or the check itself
 * failed: what could not be checked does not pass. Node and the ast-grep binary only, so that an
 * edit waits for it as briefly as possible.
 */
import { spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";

const ROOT = dirname(import.meta.dirname);
const RULES = join(import.meta.dirname, "rules.yml");
const CODE = /\.[cm]?[jt]sx?$/;
/** Read word by word, for models and addresses that hide there. Prose may name what it likes. */
const TEXT =
  /\.(cfg|env|html|ini|json|sh|toml|ya?ml)$|(^|\/)(Dockerfile|Makefile|Procfile|justfile|\.env[^/]*)$/;
const TEXT_RULES = new Set(["gateway-only", "unpinned-model"]);
/** At the top are ours: guard/ names what it forbids. */
const SKIPPED =
  /(^|\/)(\.git|\.next|node_modules)\/|^(guard|var|\.claude)\/|^\.copier-answers\.yml$|(^|\/)package-lock\.json$/;
/** Every file is one language. */
const CONFIG = JSON.stringify({ ruleDirs: [], languageGlobs: { tsx: ["*"] } });
/** Without a finding here, rules or binary are broken. */
const CANARY = "canary.ts";
/** In bytes; what is much larger ast-grep leaves out, and says nothing. */
const LARGEST = 2_000_000;

/** One match of a rule: `line` counts from 1, `path` is relative to the project. */
interface Finding {
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

interface Edit {
  old_string: string;
  new_string: string;
  replace_all?: boolean;
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
function scan(sources: Map<string, string>): Finding[] {
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

/** The path with every link followed, also of what does not exist yet. */
function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path === dirname(path) ? path : join(real(dirname(path)), basename(path));
  }
}

/** The path inside the project; null for what the rules do not cover. */
function covered(given: string): string | null {
  const path = relative(ROOT, real(resolve(given))).replaceAll(sep, "/");
  const outside = path.startsWith("../") || isAbsolute(path) || SKIPPED.test(path);
  return outside || !(CODE.test(path) || TEXT.test(path)) ? null : path;
}

/** What a file of the project holds; "" when there is none. */
function read(path: string): string {
  try {
    return readFileSync(join(ROOT, path), "utf8");
  } catch (error) {
    if (["ENOENT", "EISDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return "";
    throw error;
  }
}

/** Paths that git commands print, each ended by NUL; null where git cannot say. */
function listed(...commands: string[][]): string[] | null {
  const names = commands.map((command) => {
    const done = spawnSync("git", ["-C", ROOT, ...command, "-z"], {
      encoding: "utf8",
      maxBuffer: 1 << 30,
    });
    return done.status === 0 ? done.stdout.split("\0").filter(Boolean) : null;
  });
  return names.includes(null) ? null : names.flatMap((some) => some ?? []);
}

const UNTRACKED = ["ls-files", "--others", "--exclude-standard"];

/** Everything that git does not ignore; where it knows nothing, every file. */
function projectFiles(): string[] {
  const names = listed([...UNTRACKED, "--cached"]) ?? [];
  // a repository around the project may ignore all of it
  const every = () => readdirSync(ROOT, { recursive: true, encoding: "utf8" });
  return (names.length ? names : every()).map((name) => join(ROOT, name));
}

/** What differs from the last commit; without one, everything. */
function changedFiles(): string[] {
  const names = listed(["diff", "--name-only", "--relative", "HEAD"], UNTRACKED);
  const known = names?.length || listed(["ls-files"])?.length;
  return names && known ? names.map((name) => join(ROOT, name)) : projectFiles();
}

function check(files: string[]): Finding[] {
  const names = files.map(covered).filter((name) => name !== null);
  return scan(new Map(names.map((name) => [name, read(name)])));
}

function plain(text: string): string {
  return text.replace(/[\u201c\u201d]/g, '"').replace(/[\u2018\u2019]/g, "'");
}

/** The text as it would stand after the edits; what does not match is checked all the same. */
function edited(before: string, edits: Edit[]): string {
  let text = before;
  for (const { old_string, new_string, replace_all } of edits) {
    let old = old_string;
    // the tool, too, takes straight quotes for curly ones
    const at = plain(text).indexOf(plain(old));
    if (!text.includes(old) && at >= 0) old = text.slice(at, at + old.length);
    if (!old || !text.includes(old)) text = `${new_string}\n${text}`;
    else if (replace_all) text = text.replaceAll(old, () => new_string);
    else text = text.replace(old, () => new_string);
  }
  return text;
}

/** A text that the call must bring; throws where it does not. */
function given(call: Record<string, unknown>, name: string): string {
  const value = call[name];
  if (typeof value !== "string") throw new Error(`no ${name}`);
  return value;
}

/** Findings that an Edit or Write would add to what the file already has. */
function addedBy(call: Record<string, unknown>): Finding[] {
  const path = covered(given(call, call.notebook_path ? "notebook_path" : "file_path"));
  if (path === null) return [];
  const before = read(path);
  let after: string;
  if (call.content !== undefined) {
    after = given(call, "content");
  } else {
    // MultiEdit carries a list
    const edits = (call.edits ?? [call]) as Record<string, unknown>[];
    const checked = edits.map((edit) => ({
      old_string: given(edit, "old_string"),
      new_string: given(edit, "new_string"),
      replace_all: edit.replace_all === true,
    }));
    after = edited(before, checked);
  }
  const found = scan(new Map([[path, after]]));
  if (found.length === 0 || before === "") return found;
  const known = scan(new Map([[path, before]])).map(({ rule, text }) => `${rule} ${text}`);
  return found.filter(({ rule, text }) => {
    const at = known.indexOf(`${rule} ${text}`);
    if (at >= 0) known.splice(at, 1);
    return at < 0;
  });
}

function fromHook(): Finding[] {
  const call = JSON.parse(readFileSync(0, "utf8"));
  const shell = ["Bash", "PowerShell"].includes(given(call, "tool_name"));
  return shell ? check(changedFiles()) : addedBy(call.tool_input);
}

function main(files: string[]): number {
  const hook = files[0] === "--hook";
  let found: Finding[];
  try {
    found = hook ? fromHook() : check(files.length ? files : projectFiles());
  } catch (error) {
    // whatever it was: an unchecked edit must not pass
    console.error(`guard: the check itself failed: ${error}`);
    return 2;
  }
  found.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.line - b.line));
  for (const { path, line, rule, why, text } of found) {
    const told = `${path}:${line}: [${rule}] ${why}\n    ${text.split("\n")[0]}`;
    if (hook) console.error(told);
    else console.log(told);
  }
  if (found.length && hook) {
    console.error('Refused: CLAUDE.md, "The seven mistakes", shows what to write.');
  }
  return found.length ? (hook ? 2 : 1) : 0;
}

process.exitCode = main(process.argv.slice(2));

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
import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { CODE, type Finding, scan } from "./scan.ts";

const ROOT = dirname(import.meta.dirname);
/** Read word by word, for models and addresses that hide there. Prose may name what it likes. */
const TEXT =
  /\.(cfg|env|html|ini|json|sh|toml|ya?ml)$|(^|\/)(Dockerfile|Makefile|Procfile|justfile|\.env[^/]*)$/;
/** At the top are ours: guard/ names what it forbids. */
const SKIPPED =
  /(^|\/)(\.git|\.next|node_modules)\/|^(guard|var|\.claude)\/|^\.copier-answers\.yml$|(^|\/)package-lock\.json$/;

interface Edit {
  old_string: string;
  new_string: string;
  replace_all?: boolean;
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

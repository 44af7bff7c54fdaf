/**
 * A Claude Code hook on shell commands: ask, or deny, before anything that may spend money.
 *
 *     guard/spend.ts ask|deny      the call as JSON on stdin, the decision as JSON on stdout
 *
 * It looks for the paid scripts, the spend flag, Replicate's API, SDK and token, in any spelling
 * that it can read, and lets plain reads (`cat`, `git diff`, `biome check`) pass. What it cannot
 * read, a copy under another name say, meets the dry run inside each paid script. Exit 2: the hook
 * failed.
 */
import { readFileSync } from "node:fs";

const PAID = ["batch-generate", "run-evaluation", "train-cog-model"];
const SPENDS = [
  new RegExp(PAID.map((name) => name.replaceAll("-", "[-_.]?")).join("|"), "i"),
  /confirm.spend/i,
  /api\.replicate|REPLICATE_(API_TOKEN|BASE_URL|WEBHOOK_SECRET)/i,
  /\b(import|from|require)\W+replicate\b/i,
  /\breplicate\.(run|stream|use|predictions|trainings|deployments|Replicate)/i,
  /(^|[;&|(]|\b(dlx|npx|uvx|bunx|run|exec|env)(\s+-\S+)*)\s*replicate(-mcp)?(@\S+)?\s/im,
  /\blib\/(service|replicate|worker)\b/i,
  /npm:replicate\b|\br8\.im\/|\bcog\s+(predict|run|train|push)/i,
  /scripts\/\S*[$`]/i,
];
const GUARD =
  /(^|[\s/'"=>(])guard(\/|\s|$)|\.claude\/(settings|hooks)|\bcd\s+\S*\.claude\b|core\.hooksPath|\scommit\b.*\s--no-verify\b/m;
const SECRETS = [
  /(?<!-[efs])(?<!check-ignore)(^|[\s/'"=@<(,])\.env(\.(local|production|staging))?(?=$|[\s'";|&)>,])/m,
  /(^|[;&|(])\s*(env|printenv|export( -p)?|declare -[px]+)\s*($|[;&|)>])/m,
];
const MAKES_ENV =
  /^\s*(cp( -n)? \.env\.example \.env\.local|touch \.env\.local|chmod 600 \.env\.local)\s*$/;

const READERS = new Set(
  "cat head tail wc ls grep rg find diff stat cut nl cd pwd echo printf biome tsc".split(" "),
);
const GIT = new Set("add blame commit diff grep log ls-files show status".split(" "));
const RUNS = ["node guard/check.ts", "npm run lint", "npm run format", "npm run typecheck"];
/** Options that make a reader run or write something. */
const DANGEROUS =
  /^(-(exec|ok|delete|fprint|fls)|-O|--(no-verify|pre|hostname-bin|output|ext-diff|textconv|open-files-in-pager|config|outDir|outFile))/;
const SEPARATORS = new Set(["&&", "||", ";", ";;", "|", "|&", "&"]);

/** Whether a word's wildcards match a paid script: `scripts/b*.ts`, `*-generate.ts`. */
function hiddenByGlob(command: string): boolean {
  return command.split(/[\s;&|()<>]+/).some((word) => {
    const parts = word.split("/");
    const name = parts.pop() ?? "";
    const folder = parts.pop() ?? "";
    // a product, or everything: too common to ask
    if (name === "*" && !command.includes("scripts")) return false;
    const near = ["", ".", ".."].includes(folder) || matches("scripts", folder);
    return near && /[*?[{]/.test(word) && PAID.some((paid) => matches(`${paid}.ts`, name));
  });
}

/** Whether a shell's pattern matches the name; what braces hold counts as anything. */
function matches(name: string, pattern: string): boolean {
  const source = pattern
    .replace(/\{[^}]*\}/g, "*")
    .replace(/[.+^$()|\\{}]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".")
    .replaceAll("[!", "[^");
  try {
    return new RegExp(`^${source}$`).test(name);
  } catch {
    return true; // brackets that do not close
  }
}

/** A command as a shell splits it: words without their quotes, operators apart; null if open. */
function wordsOf(command: string): string[] | null {
  const words: string[] = [];
  const token =
    /\s+|([();<>|&]+)|((?:[^\s'"\\();<>|&]|'[^']*'|"(?:[^"\\]|\\[\s\S])*"|\\[\s\S])+)|([\s\S])/g;
  for (const [, operator, word, open] of command.matchAll(token)) {
    if (open !== undefined) return null;
    if (operator !== undefined) words.push(operator);
    if (word !== undefined) {
      words.push(
        word.replace(/'([^']*)'|"((?:[^"\\]|\\[\s\S])*)"|\\([\s\S])/g, (_, single, double, one) =>
          double === undefined ? (single ?? one) : double.replace(/\\(["\\])/g, "$1"),
        ),
      );
    }
  }
  return words;
}

/** Whether every part of the command shows text and can neither run nor write anything. */
function onlyReads(command: string): boolean {
  if (/[$`]|<\(|<</.test(command)) return false;
  const words = wordsOf(command.replaceAll("\n", " ; "));
  if (words === null) return false;
  const parts: string[][] = [[]];
  for (const word of words) {
    if (SEPARATORS.has(word)) parts.push([]);
    else parts.at(-1)?.push(word);
  }
  return parts.every(reads);
}

function reads(given: string[]): boolean {
  let words = given;
  for (;;) {
    // output may only vanish: 2>/dev/null, 2>&1
    const at = words.findIndex((word) => word === ">" || word === ">&");
    if (at < 0) break;
    if (!["/dev/null", "1", "2"].includes(words[at + 1] ?? "")) return false;
    const before = words.slice(0, at).filter((word) => word !== "1" && word !== "2");
    words = [...before, ...words.slice(at + 2)];
  }
  if (words.some((word) => /^[<>()&]*[<>()][<>()&]*$/.test(word))) return false;
  if (words.some((word) => DANGEROUS.test(word))) return false;
  if (words[0] === "xargs") words = words.slice(1);
  if (words[0] === "npx") words = words.slice(1);
  const [first, second = "", third = ""] = words;
  if (first === undefined) return true;
  if (first === "git") return GIT.has(second);
  if (first === "sed") return second === "-n" && /^[\d,$]+p$/.test(third);
  const text = words.join(" ");
  return READERS.has(first) || RUNS.some((run) => text === run || text.startsWith(`${run} `));
}

/** Why the command wants a person, or null. */
function reason(command: string): string | null {
  const plain = command.replace(/["']\s*\+\s*["']|\\\n|["'\\]/g, "");
  const spends = SPENDS.some((pattern) => pattern.test(plain) || pattern.test(command));
  let why: string;
  if (spends || hiddenByGlob(plain)) {
    why = "It may spend money at Replicate (a paid script, the API, the SDK or the token)";
  } else if (GUARD.test(plain)) {
    why = "It touches the guard or its settings";
  } else {
    const reads = SECRETS.some((pattern) => pattern.test(command)) && !MAKES_ENV.test(command);
    return reads ? "It could read the secrets" : null; // reading is what must not happen
  }
  return onlyReads(command) ? null : why;
}

function main([decision, ...more]: string[]): number {
  let why: string | null;
  try {
    if (more.length || (decision !== "ask" && decision !== "deny")) {
      throw new Error("ask or deny?");
    }
    const { command } = JSON.parse(readFileSync(0, "utf8")).tool_input;
    if (typeof command !== "string") throw new Error("no command");
    why = reason(command);
  } catch (error) {
    // an unread command must not pass
    console.error(`guard: the check itself failed: ${error}`);
    return 2;
  }
  if (why) {
    const then = decision === "ask" ? "ask the person first" : "only a person may run it";
    const hookSpecificOutput = {
      hookEventName: "PreToolUse",
      permissionDecision: decision,
      permissionDecisionReason: `guard: ${why}: ${then}.`,
    };
    console.log(JSON.stringify({ hookSpecificOutput }));
  }
  return 0;
}

process.exitCode = main(process.argv.slice(2));

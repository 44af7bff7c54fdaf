"""A Claude Code hook on shell commands: ask, or deny, before anything that may spend money.

    guard/spend.py ask|deny      the call as JSON on stdin, the decision as JSON on stdout

It looks for the paid scripts, the spend flag, Replicate's API, SDK and token, in any spelling
that it can read, and lets plain reads (`cat`, `git diff`, `ruff check`) pass. What it cannot read,
a copy under another name say, meets the dry run inside each paid script. Exit 2: the hook failed.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import sys

PAID = ("batch_generate", "run_evaluation", "train_cog_model")
SPENDS = re.compile(
    "|".join(name.replace("_", "[-_.]?") for name in PAID)
    + r"""|confirm.spend
    |api\.replicate|REPLICATE_(API_TOKEN|BASE_URL|WEBHOOK_SECRET)
    |\b(import|from|import_module|require)\W+replicate\b
    |\breplicate\.(run|stream|use|predictions|trainings|deployments|Client|AsyncReplicate|Replicate)
    |(^|[;&|(]|\b(dlx|npx|uvx|bunx|run|exec|env)(\s+-\S+)*)\s*replicate(-mcp)?(@\S+)?\s
    |\binference([./]|\s+import\W.*)(service|gateway|worker)\b
    |npm:replicate\b|\br8\.im/|\bcog\s+(predict|run|train|push)
    |scripts/\S*[$`]""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
GUARD = re.compile(
    r"(^|[\s/'\"=>(])guard(/|\s|$)|\.claude/(settings|hooks)|\bcd\s+\S*\.claude\b"
    r"|core\.hooksPath|\scommit\b.*\s--no-verify\b"
)
SECRETS = re.compile(
    r"(?<!-[efs])(?<!check-ignore)(^|[\s/'\"=@<(,])\.env(\.(local|production|staging))?(?=$|[\s'\";|&)>,])"
    r"|(^|[;&|(])\s*(env|printenv|export( -p)?|declare -[px]+)\s*($|[;&|)>])",
    re.MULTILINE,
)
MAKES_ENV = re.compile(r"\s*(cp( -n)? \.env\.example \.env|touch \.env|chmod 600 \.env)\s*")

READERS = {"cat", "head", "tail", "wc", "ls", "grep", "rg", "find", "diff", "stat", "cut", "nl"}
READERS |= {"cd", "pwd", "echo", "printf", "ruff", "mypy"}
GIT = {"add", "blame", "commit", "diff", "grep", "log", "ls-files", "show", "status"}
# Options that make a reader run or write something.
DANGEROUS = re.compile(
    r"-(exec|ok|delete|fprint|fls)|-O|--(no-verify|pre|hostname-bin|output|ext-diff|textconv|open-files-in-pager"
    r"|python-executable|config)"
)
SEPARATORS = {"&&", "||", ";", ";;", "|", "|&", "&"}


def hidden_by_glob(command: str) -> bool:
    """Whether a word's wildcards match a paid script: `scripts/b*.py`, `*_generate.py`."""
    for word in re.split(r"[\s;&|()<>]+", command):
        folder, _, name = word.rpartition("/")
        folder = folder.rpartition("/")[2]
        if name == "*" and "scripts" not in command:  # a product, or everything: too common to ask
            continue
        near = folder in ("", ".", "..") or fnmatch.fnmatch("scripts", braces(folder))
        if near and re.search(r"[*?\[{]", word) and matches_paid(braces(name)):
            return True
    return False


def matches_paid(pattern: str) -> bool:
    return any(fnmatch.fnmatch(name + ".py", pattern) for name in PAID)


def braces(pattern: str) -> str:
    return re.sub(r"\{[^}]*\}", "*", pattern)


def only_reads(command: str) -> bool:
    """Whether every part of the command shows text and can neither run nor write anything."""
    if re.search(r"[$`]|<\(|<<", command):
        return False
    try:
        lexer = shlex.shlex(command.replace("\n", " ; "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
    except ValueError:  # quotes that do not close
        return False
    parts: list[list[str]] = [[]]
    for word in words:
        if word in SEPARATORS:
            parts.append([])
        else:
            parts[-1].append(word)
    return all(reads(part) for part in parts if part)


def reads(words: list[str]) -> bool:
    while ">" in words or ">&" in words:  # output may only vanish: 2>/dev/null, 2>&1
        at = next(i for i, word in enumerate(words) if word in (">", ">&"))
        if words[at + 1 : at + 2] not in (["/dev/null"], ["1"], ["2"]):
            return False
        words = [w for w in words[:at] if w not in ("1", "2")] + words[at + 2 :]
    if any(set(word) & set("<>()") and not word.strip("<>()&") for word in words):
        return False
    if any(DANGEROUS.match(word) for word in words):
        return False
    if words[:1] == ["xargs"]:
        words = words[1:]
    if words[:2] == ["uv", "run"]:
        return words[2:3] in (["ruff"], ["mypy"], ["guard/check.py"])
    if words[:1] == ["git"]:
        return words[1:2] != [] and words[1] in GIT
    if words[:1] == ["sed"]:
        return len(words) > 2 and words[1] == "-n" and bool(re.fullmatch(r"[\d,$]+p", words[2]))
    return words == [] or words[0] in READERS


def reason(command: str) -> str | None:
    """Why the command wants a person, or None."""
    plain = re.sub(r"""["']\s*\+\s*["']|\\\n|["'\\]""", "", command)
    if SPENDS.search(plain) or SPENDS.search(command) or hidden_by_glob(plain):
        why = "It may spend money at Replicate (a paid script, the API, the SDK or the token)"
    elif GUARD.search(plain):
        why = "It touches the guard or its settings"
    elif SECRETS.search(command) and not MAKES_ENV.fullmatch(command):
        return "It could read the secrets"  # reading is what must not happen
    else:
        return None
    return None if only_reads(command) else why


def main(arguments: list[str]) -> int:
    try:
        (decision,) = arguments
        if decision not in ("ask", "deny"):
            raise ValueError(decision)
        why = reason(str(json.load(sys.stdin)["tool_input"]["command"]))
    except Exception as error:  # an unread command must not pass
        print(f"guard: the check itself failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if why:
        then = "ask the person first" if decision == "ask" else "only a person may run it"
        answer = {
            "hookEventName": "PreToolUse",
            "permissionDecision": decision,
            "permissionDecisionReason": f"guard: {why}: {then}.",
        }
        print(json.dumps({"hookSpecificOutput": answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

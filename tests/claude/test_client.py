"""What the real Claude Code client does in a rendered project: from npm, without token or network.

In print mode nobody can answer a question, so a call that would be asked about does not run. The
commands themselves (uv, curl, …) are replaced by ones that write down that they were started.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.claude import spellings
from tests.claude.client import Client, Outcome, Session, install
from tests.claude.languages import FRAMEWORKS, Language, rendered
from tests.claude.messages_api import Call
from tests.rendering import Renders, commit_all

pytestmark = pytest.mark.slow

MODES = ("default", "acceptEdits", "bypassPermissions")
FOLDERS = (".", "src")
EDITS = ("--allowedTools", "Write,Edit,NotebookEdit,Read")
SHADOWED = (
    *("uv", "uvx", "npx", "npm", "curl", "wget", "http", "replicate", "docker", "make", "nohup"),
    *("watch", "script", "coverage"),
)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(install(tmp_path_factory.getbasetemp().parent / "claude-code"))


# Scripts that only write down that they ran.
WRITES = {
    "py": "#!/usr/bin/env python3\nimport os\nopen(os.environ['LEDGER'], 'a').write('it ran\\n')\n",
    "ts": '#!/usr/bin/env node\nimport { appendFileSync } from "node:fs";\n'
    'appendFileSync(process.env.LEDGER, "it ran\\n");\n',
}


@pytest.fixture(params=["fastapi", "nextjs"])
def name(request: pytest.FixtureRequest) -> str:
    """Where Django is not named: its guard and its settings are FastAPI's."""
    return str(request.param)


@pytest.fixture
def language(name: str) -> Language:
    return FRAMEWORKS[name]


@pytest.fixture
def project(language: Language, renders: Renders, tmp_path: Path) -> Callable[[str], Path]:
    """A committed copy of a render whose paid scripts only write down that they ran."""

    def made(paid: str) -> Path:
        copied = rendered(renders, tmp_path / "project", language, paid_scripts=paid)
        for stem in ("batch_generate", "run_evaluation", "train_cog_model"):
            known = stem if language.suffix == "py" else stem.replace("_", "-")
            script = copied / f"scripts/{known}.{language.suffix}"
            assert script.exists() == (paid != "none")
            if paid != "none":
                script.write_text(WRITES[language.suffix])
                script.chmod(0o755)
        commit_all(copied, "Rendered")
        return copied

    return made


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("LEDGER", str(path))
    return path


@pytest.fixture
def tools(tmp_path: Path, ledger: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in SHADOWED:
        tool = folder / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> "{ledger}"\n')
        tool.chmod(0o755)
    return folder


def shell(listed: Sequence[str]) -> list[Call]:
    return [("Bash", {"command": c, "description": "as asked"}) for c in listed]


def refused(listed: Sequence[str], session: Session) -> dict[str, str]:
    pairs = zip(listed, session.outcomes, strict=True)
    return {command: outcome.text for command, outcome in pairs if not outcome.ran}


@pytest.mark.parametrize(
    ("name", "paid", "mode", "folder"),
    [
        # each framework, answer and mode meets each of the others once, and both folders
        ("fastapi", "ask", "default", "."),
        ("fastapi", "deny", "acceptEdits", "src"),
        ("fastapi", "none", "bypassPermissions", "src"),
        ("django", "ask", "acceptEdits", "src"),
        ("django", "deny", "bypassPermissions", "."),
        ("django", "none", "default", "src"),
        ("nextjs", "ask", "bypassPermissions", "src"),
        ("nextjs", "deny", "default", "src"),
        ("nextjs", "none", "acceptEdits", "."),
    ],
)
def test_paid_commands_never_run_unasked_and_safe_ones_always_do(
    client: Client,
    project: Callable[[str], Path],
    tools: Path,
    ledger: Path,
    language: Language,
    paid: str,
    mode: str,
    folder: str,
) -> None:
    commands = language.commands
    safe = commands.SAFE + commands.READS
    spending = commands.STARTS + commands.CALLS
    # only in this mode the guard is all that stands before a command
    later = commands.IN_PASSING if mode == "bypassPermissions" else ()
    listed = spending + commands.GUARD + later
    session = client(project(paid), shell(safe + listed), mode, folder, path=tools)
    assert "Invalid settings" not in session.stderr
    answers = refused(safe + listed, session)
    assert [c for c in safe if c in answers] == []
    assert [c for c in listed if c not in answers] == []
    ran = [line.split()[0] for line in ledger.read_text().splitlines()]
    assert ran == [c.split()[0] for c in safe if c.split()[0] in SHADOWED]
    if paid == "deny":
        final = ("only a person", "has been denied")
        assert [c for c in spending if not any(word in answers[c] for word in final)] == []


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_ordinary_work_is_not_in_the_way_of_a_person_who_bypasses(
    client: Client, project: Callable[[str], Path], language: Language, tools: Path
) -> None:
    listed = language.commands.ORDINARY
    session = client(project("deny"), shell(listed), "bypassPermissions", ".", path=tools)
    assert refused(listed, session) == {}


def outcomes(
    client: Client, project: Path, calls: Sequence[Call], mode: str, folder: str
) -> list[Outcome]:
    return client(project, calls, mode, folder, *EDITS).outcomes


@pytest.mark.parametrize(
    ("name", "mode", "folder"),
    [
        # every mode from both folders, in turns; each language meets every mode
        ("fastapi", "default", "."),
        ("nextjs", "default", "src"),
        ("fastapi", "acceptEdits", "src"),
        ("nextjs", "acceptEdits", "."),
        ("fastapi", "bypassPermissions", "."),
        ("nextjs", "bypassPermissions", "src"),
    ],
)
def test_every_bad_edit_is_refused_and_every_good_one_accepted(
    client: Client, project: Callable[[str], Path], language: Language, mode: str, folder: str
) -> None:
    started = project("ask")
    # each once, another third in each mode: the hook is the same
    some = slice(MODES.index(mode), None, 3)
    suffix = language.suffix
    given = [s for s in spellings.bad() + spellings.pairs("bad") if s.suffix == suffix][some]
    fine = [s for s in spellings.ordinary() + spellings.pairs("good") if s.suffix == suffix][some]
    # a path is context, too: mistakes are made where predictions are
    folders = ["predictions/"] * len(given) + [""] * len(fine)
    files = [started / f"src/app/{name}written_{i}.{suffix}" for i, name in enumerate(folders)]
    calls: list[Call] = [
        ("Write", {"file_path": str(file), "content": snippet.code})
        for file, snippet in zip(files, given + fine, strict=True)
    ]
    outcomes(client, started, calls, mode, folder)
    written = [file.exists() for file in files]
    through = [str(s) for s, done in zip(given, written, strict=False) if done]
    held_up = [str(s) for s, done in zip(fine, written[len(given) :], strict=True) if not done]
    assert through == []
    assert held_up == []


@pytest.mark.parametrize("name", ["fastapi"])
def test_edits_and_notebooks(client: Client, project: Callable[[str], Path]) -> None:
    started = project("ask")
    file = started / "src/app/there.py"
    file.write_text("x = 1\n")
    notebook = started / "explore.ipynb"
    cell = '{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "source": "x = 1"}'
    head = '"metadata": {}, "nbformat": 4, "nbformat_minor": 5'
    notebook.write_text(f'{{"cells": [{cell}], {head}}}')
    commit_all(started, "There")

    def edit(new: str) -> Call:
        given = {"file_path": str(file), "old_string": "x = 1", "new_string": new}
        return ("Edit", given)

    def cell_edit(new: str) -> Call:
        return ("NotebookEdit", {"notebook_path": str(notebook), "cell_id": "a", "new_source": new})

    calls: list[Call] = [
        ("Read", {"file_path": str(file)}),
        ("Read", {"file_path": str(notebook)}),
        edit("import replicate"),
        cell_edit("import replicate"),
        edit("x = 2"),
        cell_edit("x = 2"),
    ]
    done = outcomes(client, started, calls, "default", ".")
    assert [outcome.ran for outcome in done] == [True, True, False, False, True, True]
    assert file.read_text() == "x = 2\n"
    assert "x = 2" in notebook.read_text()
    assert "gateway-only" in done[2].text


def test_a_mistake_written_by_the_shell_is_told_at_once(
    client: Client, project: Callable[[str], Path], language: Language
) -> None:
    started = project("ask")
    file = f"src/app/shell.{language.suffix}"
    heredoc = f"cat > {file} <<'EOF'\nurl = 'https://replicate.delivery/x.png'\nEOF"
    session = client(started, shell([heredoc, "true"]), "bypassPermissions")
    assert (started / file).exists()
    assert f"{file}:1: [replicate-url-stored]" in session.system


def test_a_project_in_a_larger_repository_is_guarded_from_its_own_folder(
    client: Client, renders: Renders, tmp_path: Path
) -> None:
    """Below and above it the client reads other settings, which the README says plainly."""
    project = renders.copy(tmp_path / "all our apps/the images")
    commit_all(project.parent, "All of them")
    bad: Call = (
        "Write",
        {"file_path": str(project / "src/app/x.py"), "content": "import replicate"},
    )
    calls = [*shell(["echo scripts/batch_generate.py | sh"]), bad]
    session = client(project, calls, "bypassPermissions")
    assert [outcome.ran for outcome in session.outcomes] == [False, False]
    below = client(project, calls, "bypassPermissions", "src")
    assert [outcome.ran for outcome in below.outcomes] == [True, True]
    assert "part of a larger repository" in (project / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "folder", "modes"),
    [
        ("fastapi", "src", MODES),
        ("fastapi", ".", MODES[2:]),
        ("nextjs", ".", MODES),
        ("nextjs", "src", MODES[2:]),
    ],
)
def test_guard_settings_and_secrets_are_out_of_reach(
    client: Client,
    project: Callable[[str], Path],
    language: Language,
    folder: str,
    modes: Sequence[str],
) -> None:
    started = project("ask")
    secrets = ".env" if language.suffix == "py" else ".env.local"
    (started / secrets).write_text("REPLICATE_API_TOKEN=r8_secret\n")
    check = f"guard/check.{language.suffix}"
    guarded = (check, "guard/rules.yml", ".claude/settings.json")
    before = {name: (started / name).read_bytes() for name in guarded}
    paths = [str(started / name) for name in guarded]
    # the client refuses to overwrite what was not read, whatever the rules say: read first
    calls: list[Call] = [("Read", {"file_path": path}) for path in paths]
    calls += [("Write", {"file_path": path, "content": ""}) for path in paths]
    calls += [("Read", {"file_path": str(started / secrets)})]
    for mode in modes:
        up = "" if folder == "." else "../"
        listed = [f"cat {up}{secrets}", f"grep TOKEN {up}{secrets}"]
        listed += [f"rm {up}.claude/settings.json", f"rm {up}guard/rules.yml"]
        bash = shell([*listed, f"sed -i s/a/b/ {up}{check}"])
        done = outcomes(client, started, [*calls, *bash], mode, folder)
        assert all(outcome.ran for outcome in done[: len(paths)])
        assert not any(outcome.ran for outcome in done[len(paths) : 2 * len(paths)])
        assert not any("r8_secret" in outcome.text for outcome in done)
        assert {name: (started / name).read_bytes() for name in guarded} == before


@pytest.mark.parametrize(("name", "folder"), [("fastapi", "src"), ("nextjs", ".")])
def test_the_client_reads_the_document(
    client: Client, project: Callable[[str], Path], folder: str
) -> None:
    session = client(project("ask"), shell(["true"]), "default", folder)
    assert "The seven mistakes" in session.system
    assert "nightmareai/real-esrgan" in session.system


@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
def test_the_client_finds_the_settings_valid(
    client: Client, project: Callable[[str], Path], tmp_path: Path, paid: str
) -> None:
    """`claude doctor` exits 0 either way: a broken file is planted to see that it would say so."""
    started = project(paid)

    def doctor(folder: str = ".") -> str:
        env = {**os.environ, "HOME": str(tmp_path), "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        command = [str(client.binary), "doctor"]
        done = subprocess.run(
            command,
            cwd=started / folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        return done.stdout + done.stderr

    assert "Invalid settings" not in doctor() + doctor("src")
    if paid != "ask":  # a broken file is broken whatever it says
        return
    for name in ("settings.json", "settings.local.json"):
        file = started / ".claude" / name
        good = file.read_text("utf-8")
        file.write_text(good.replace('"deny": [', '"deny": "x", "y": [', 1))
        assert "Invalid settings" in doctor(), name
        file.write_text(good)


@pytest.mark.parametrize("name", ["fastapi"])
@pytest.mark.parametrize("paid", ["ask", "deny"])
def test_the_mcp_server_of_the_readme_neither_spends_nor_tells(
    client: Client, project: Callable[[str], Path], tmp_path: Path, paid: str
) -> None:
    """The real server, as the README says to name it; also without its `--operation=read`."""
    started = project(paid)
    readme = (started / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"```json\n(\{\n  \"mcpServers\".*?)```", readme, re.DOTALL)
    assert "replicate-mcp@0.9.0" in shown
    assert "--operation=read" in shown
    server = client.binary.parents[2] / "replicate-mcp/index.js"
    assert server.exists()
    folder = tmp_path / "npx"
    folder.mkdir()
    npx = folder / "npx"  # `-y replicate-mcp@0.9.0 …`, from where it is installed already
    npx.write_text(f'#!/bin/sh\nshift 2\nexec node "{server}" "$@"\n')
    npx.chmod(0o755)
    prefix = "mcp__replicate__"
    reads: list[Call] = [(f"{prefix}list_hardware", {})]
    secret: list[Call] = [(f"{prefix}get_default_webhooks_secret", {})]
    spends: list[Call] = [
        (f"{prefix}create_predictions", {"version": "a/b", "input": {"prompt": "x"}}),
        (
            f"{prefix}create_models_predictions",
            {"model_owner": "a", "model_name": "b", "input": {}},
        ),
        (f"{prefix}cancel_predictions", {"prediction_id": "x"}),
        (f"{prefix}update_deployments", {"deployment_owner": "a", "deployment_name": "b"}),
        (f"{prefix}delete_models", {"model_owner": "a", "model_name": "b"}),
    ]
    env = {"REPLICATE_API_TOKEN": "r8_not_a_token", "REPLICATE_BASE_URL": "http://127.0.0.1:9/v1"}
    for text, listed in (
        (shown, reads + secret),
        (shown.replace(', "--operation=read"', ""), reads + secret + spends),
    ):
        (started / ".mcp.json").write_text(text)
        starts = FOLDERS if paid == "ask" else FOLDERS[::-1]
        for mode, start in zip(MODES, itertools.cycle(starts), strict=False):
            session = client(started, listed, mode, start, path=folder, **env)
            outcomes = dict(zip([call[0] for call in listed], session.outcomes, strict=True))
            hidden = {name for name, done in outcomes.items() if "No such tool" in done.text}
            ran = {name for name, done in outcomes.items() if done.ran} - hidden
            assert ran == ({prefix + "list_hardware"} if mode == "bypassPermissions" else set())
            # what is denied the client does not even offer
            denied = {name for name, _ in listed if paid == "deny" or "delete" in name}
            assert hidden == (denied | {secret[0][0]}) - {reads[0][0]}


def test_without_the_hooks_the_spellings_would_run(
    client: Client,
    project: Callable[[str], Path],
    language: Language,
    tools: Path,
    ledger: Path,
) -> None:
    """The suite can fail: without the guard, bypass mode starts most of them."""
    started = project("ask")
    for name in ("settings.json", "settings.local.json"):
        (started / ".claude" / name).write_text("{}\n")
    ending = [command for command in language.commands.STARTS[:20] if "--watch" not in command]
    client(started, shell(ending), "bypassPermissions", path=tools)
    assert len(ledger.read_text().splitlines()) > 10

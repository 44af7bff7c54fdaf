"""Permissions: strict JSON, the rules that must stand, both files alike; and the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from tests.rendering import Renders, commit_all, snapshot, tree, update

PAID = ("batch_generate", "run_evaluation", "train_cog_model")
SAFE = ("list_models", "check_usage", "preview_model_schema", "doctor")
SECRETS = ("Read(//**/.env)", "Read(//**/.env.local)", "Read(//**/.env.production)")
GUARDED = (
    "Edit(//**/guard/**)",
    "Edit(//**/.claude/settings.json)",
    "Edit(//**/.claude/settings.local.json)",
)


def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def settings(project: Path, name: str = "settings.json") -> dict[str, Any]:
    text = (project / ".claude" / name).read_text("utf-8")
    loaded = json.loads(text, object_pairs_hook=no_doubles)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
def test_both_files_hold_the_same_strict_json(renders: Renders, paid: str) -> None:
    project = renders(paid_scripts=paid)
    assert settings(project) == settings(project, "settings.local.json")
    permissions = settings(project)["permissions"]
    assert set(permissions) == {"allow", "ask", "deny"}
    for rules in permissions.values():
        assert all(isinstance(rule, str) for rule in rules)
        assert len(rules) == len(set(rules))
    assert {*SECRETS, *GUARDED, "mcp__replicate__delete_*"} <= set(permissions["deny"])
    assert "mcp__replicate__get_default_webhooks_secret" in permissions["deny"]
    assert "Bash(*--show-secret*)" in permissions["deny"]  # doctor's, the same secret


@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
def test_paid_scripts_stand_where_the_answer_says(renders: Renders, paid: str) -> None:
    permissions = settings(renders(paid_scripts=paid))["permissions"]
    where = "deny" if paid == "deny" else "ask"
    other = "ask" if paid == "deny" else "deny"
    assert "mcp__replicate__create_*" in permissions[where]
    assert "Bash(uv run *--confirm-spend*)" in permissions[where] or paid == "none"
    for script in PAID:
        rules = {f"Bash(uv run scripts/{script}.py)", f"Bash(uv run scripts/{script}.py *)"}
        assert rules <= set(permissions[where]) or paid == "none"
        assert script not in str(permissions[other]) + str(permissions["allow"])
    assert paid != "none" or not any(script in str(permissions) for script in PAID)


def test_no_allowed_form_reaches_another_script(default_project: Path) -> None:
    """A star right after a file's name also allows `list_models.py/../batch_generate.py`."""
    allowed = settings(default_project)["permissions"]["allow"]
    for rule in allowed:
        assert rule.startswith("Bash(uv run ")
        assert "*" not in rule.removesuffix(" *)")
    for script in SAFE:
        assert f"Bash(uv run scripts/{script}.py)" in allowed
        assert f"Bash(uv run scripts/{script}.py *)" in allowed


def test_every_hook_blocks_when_it_breaks(default_project: Path) -> None:
    hooks = settings(default_project)["hooks"]
    assert {entry["matcher"] for entry in hooks["PreToolUse"]} == {
        "Edit|MultiEdit|Write|NotebookEdit",
        "Bash|PowerShell",
    }
    for entry in hooks["PreToolUse"]:
        for hook in entry["hooks"]:
            assert hook["onFailure"] == "block"  # clients since 2.1.295
            assert hook["command"].endswith("|| exit 2")  # all others
    (after,) = hooks["PostToolUse"]
    assert after["matcher"] == "Bash|PowerShell"


def test_an_update_leaves_the_personal_file_alone(tmp_path: Path) -> None:
    """It is rendered once; approvals that Claude Code writes into it survive."""
    source = snapshot(tmp_path / "source")
    project = tmp_path / "project"
    (source / "CHANGELOG.md").write_text("next\n")
    commit_all(source, "Next")
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True, "vcs_ref": "HEAD"}
    copier.run_copy(str(source), project, **options)
    personal = project / ".claude/settings.local.json"
    approved = settings(project, personal.name)
    approved["permissions"]["allow"].append("Bash(npm test)")
    personal.write_text(json.dumps(approved))
    commit_all(project, "Rendered, approved")
    partial = source / "partials/settings.jinja"
    partial.write_text(partial.read_text("utf-8").replace('"timeout": 30', '"timeout": 31'))
    commit_all(source, "Settings change")
    update(project, "HEAD")
    assert settings(project, personal.name) == approved
    assert "31" in (project / ".claude/settings.json").read_text("utf-8")


def test_the_personal_file_is_ignored_by_git(default_project: Path) -> None:
    ignored = (default_project / ".gitignore").read_text("utf-8").splitlines()
    assert any(line.strip("/") == ".claude/settings.local.json" for line in ignored)
    assert any(line.strip("/") == ".env" for line in ignored)


def front_matter(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    assert text.startswith("---\n")
    loaded = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def test_rules_name_paths_that_exist(default_project: Path) -> None:
    found = {
        path.stem: front_matter(path) for path in (default_project / ".claude/rules").iterdir()
    }
    assert set(found) == {"webhook", "storage"}
    for name, matter in found.items():
        matched = [p for glob in matter["paths"] for p in default_project.glob(glob)]
        assert default_project / f"src/inference/{name}.py" in matched


def test_skills(renders: Renders) -> None:
    skills = renders() / ".claude/skills"
    found = {path.name: front_matter(path / "SKILL.md") for path in skills.iterdir()}
    assert set(found) == {"add-model", "upgrade-model", "paid-job", "debug-webhook"}
    for name, matter in found.items():
        assert matter["name"] == name
        assert matter["description"]
        assert matter.get("disable-model-invocation", False) == (name == "paid-job")
    bare = renders(paid_scripts="none") / ".claude/skills"
    assert {path.name for path in bare.iterdir()} == set(found) - {"paid-job"}


def test_no_server_of_tools_unless_asked_for(default_project: Path) -> None:
    assert ".mcp.json" not in tree(default_project)

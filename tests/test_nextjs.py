"""A rendered Next.js project: its own checks, its locked packages, what its browsers get."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.node import built, npx
from tests.rendering import Renders, checked, render

STORAGES = ("local", "s3", "r2", "vercel-blob")
SERVER_ONLY = ("REPLICATE_API_TOKEN", "WEBHOOK_SECRET", "SESSION_SECRET", "api.replicate.com")


@pytest.fixture(scope="module")
def project(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return renders.copy(tmp_path_factory.mktemp("nextjs") / "project", framework="nextjs")


def packages(project: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / name).read_text("utf-8"))
    return found


def test_the_lock_is_of_this_package(renders: Renders) -> None:
    project = renders(framework="nextjs")
    package, lock = packages(project, "package.json"), packages(project, "package-lock.json")
    root = lock["packages"][""]
    assert lock["name"] == root["name"] == package["name"]
    for kind in ("dependencies", "devDependencies"):
        assert root[kind] == package[kind], f"python3 run.py lock: {kind} changed"
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, f"{name} names a registry"
        assert not name or entry["integrity"].startswith("sha512-"), name


@pytest.mark.parametrize("storage", STORAGES)
def test_the_settings_name_the_storage(renders: Renders, storage: str) -> None:
    example = (renders(framework="nextjs", storage=storage) / ".env.example").read_text("utf-8")
    scheme = {"local": "./var/outputs", "vercel-blob": "vercel-blob://outputs"}
    assert f"STORAGE_URL={scheme.get(storage, 's3://bucket/outputs')}\n" in example
    assert ("BLOB_READ_WRITE_TOKEN" in example) == (storage == "vercel-blob")
    assert "\n\n\n" not in example


@pytest.mark.slow
@pytest.mark.parametrize("check", ["format", "lint", "types", "tests"])
def test_it_passes_its_own_checks(project: Path, check: str) -> None:
    checked(project, check)


@pytest.mark.slow
def test_the_sdk_is_imported_in_one_place_only(project: Path, tmp_path: Path) -> None:
    for number, line in enumerate(
        (
            'import Replicate from "replicate";',
            'import type { Prediction } from "replicate";',
            'export * from "replicate";',
            'const sdk = await import("replicate");',
        )
    ):
        planted = project / f"src/lib/planted-{number}.ts"
        planted.write_text(f"{line}\n", "utf-8")
        try:
            with pytest.raises(AssertionError, match="noRestrictedImports"):
                npx(project, "biome", "lint", str(planted))
        finally:
            planted.unlink()


@pytest.mark.slow
def test_nothing_of_the_server_is_in_the_browser(project: Path) -> None:
    static = built(project) / ".next/static"
    texts = [path.read_text("utf-8", "replace") for path in static.rglob("*") if path.is_file()]
    assert any("Idempotency-Key" in text for text in texts), "the page's own code was not searched"
    for text in texts:
        assert not re.search(r"r8_\w|whsec_", text)
        for word in SERVER_ONLY:
            assert word not in text, word


@pytest.mark.slow
def test_a_page_that_takes_the_gateway_does_not_build(tmp_path: Path) -> None:
    project = render(tmp_path, framework="nextjs")
    planted = project / "src/components/studio.tsx"
    text = planted.read_text("utf-8")
    line = 'import { Gateway } from "@/lib/replicate.ts";\nconsole.log(Gateway);\n'
    planted.write_text(text.replace('"use client";\n', f'"use client";\n{line}', 1), "utf-8")
    with pytest.raises(AssertionError, match="server-only"):
        built(project)

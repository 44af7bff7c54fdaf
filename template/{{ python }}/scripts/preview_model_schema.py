"""What a model takes and gives: `uv run scripts/preview_model_schema.py owner/name [--json]`.

Asks Replicate and reads only: nothing is run and nothing billed. Needs REPLICATE_API_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from typing import Any

from common import run
from inference.gateway import Gateway
from inference.models import REGISTRY
from inference.settings import load_settings


async def schemas(owner_name: str) -> dict[str, Any]:
    """The newest version's id (None where Replicate shows none) and its schemas."""
    gateway = Gateway(load_settings(complete=False))
    try:
        model = await gateway.describe(owner_name)
    finally:
        await gateway.aclose()
    version = model.get("latest_version") or {}
    found = version.get("openapi_schema", {}).get("components", {}).get("schemas", {})
    return {"version": version.get("id"), **{name: found.get(name) for name in ("Input", "Output")}}


def fields(schema: dict[str, Any]) -> list[str]:
    """One line for each input."""
    required = schema.get("required", [])
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    lines = []
    for name, part in sorted(properties.items(), key=lambda item: item[1].get("x-order", 0)):
        needed = "required" if name in required else f"default {json.dumps(part.get('default'))}"
        lines.append(f"  {name}: {part.get('type', 'choice')}, {needed}")
        if part.get("description"):
            lines.append(f"      {' '.join(str(part['description']).split())}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="owner/name, or a key of this project")
    parser.add_argument("--json", action="store_true", help="the whole schemas, for machines")
    arguments = parser.parse_args()
    known = REGISTRY.get(arguments.model)
    name = known.owner_name if known else arguments.model
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        parser.error(f"{name}: give owner/name, or one of {', '.join(REGISTRY)}")
    found = asyncio.run(schemas(name))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{name}, version {found['version'] or 'not shown'}\ninput:")
    print("\n".join(fields(found["Input"] or {})))
    print(f"output: {json.dumps(found['Output'])}")
    return 0


if __name__ == "__main__":
    run(main)

"""What a model takes and gives: `uv run scripts/preview_model_schema.py owner/name`.

Asks Replicate and reads only: nothing is run and nothing billed. Needs REPLICATE_API_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from inference.gateway import Gateway, NoAnswer, NotSent, Refused, Throttled
from inference.models import REGISTRY
from inference.settings import SettingsError, load_settings


async def schemas(owner_name: str) -> dict[str, Any]:
    gateway = Gateway(load_settings(complete=False))
    try:
        model = await gateway.describe(owner_name)
    finally:
        await gateway.aclose()
    version = model.get("latest_version") or {}
    found = version.get("openapi_schema", {}).get("components", {}).get("schemas", {})
    return {"version": version.get("id"), **{name: found.get(name) for name in ("Input", "Output")}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="owner/name, or a key of this project")
    name = parser.parse_args().model
    known = REGISTRY.get(name)
    try:
        found = asyncio.run(schemas(known.owner_name if known else name))
    except (SettingsError, Refused, Throttled, NotSent, NoAnswer) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

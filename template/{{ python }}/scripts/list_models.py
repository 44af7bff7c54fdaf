"""The models of this project: `uv run scripts/list_models.py [--json]`. Spends nothing."""

from __future__ import annotations

import argparse
import json

from common import run
from inference.models import REGISTRY
from inference.registry import input_fields


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="for machines")
    as_json = parser.parse_args().json
    models = [
        {
            "key": model.key,
            "ref": model.ref,
            "kind": model.kind,
            "mode": model.mode,
            "output": model.output,
            "seconds": model.seconds,
            "input": [field["name"] for field in input_fields(model)],
        }
        for model in REGISTRY.values()
    ]
    if as_json:
        print(json.dumps(models, indent=2))
        return 0
    for model in models:
        seconds = "unknown" if model["seconds"] is None else f"{model['seconds']} s"
        print(f"{model['key']}: {model['output']}, {model['mode']}, {seconds}\n  {model['ref']}")
    return 0


if __name__ == "__main__":
    run(main)

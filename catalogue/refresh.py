"""Refresh catalogue/models.json through Replicate's API: `python catalogue/refresh.py`.

Needs REPLICATE_API_TOKEN. To add a model, first add a line `"owner/name": {"makes": "images"}`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from copier.errors import UserMessageError


def main() -> int:
    path = Path(__file__).resolve().parent.parent / "extensions" / "replicate_pins.py"
    spec = importlib.util.spec_from_file_location("replicate_pins", path)
    assert spec is not None
    assert spec.loader is not None
    pins = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = pins
    spec.loader.exec_module(pins)
    known = pins.catalogue()
    token = os.environ.get("REPLICATE_API_TOKEN", "").strip()
    try:
        if not token:
            raise UserMessageError("Set REPLICATE_API_TOKEN: every model is asked about")
        today = datetime.now(UTC).date().isoformat()
        found = pins.load_api().resolve([(name, None) for name in known], token, today, ())
    except UserMessageError as error:
        print(error, file=sys.stderr)
        return 1
    fresh = {
        name: {"makes": known[name]["makes"], **pin, "source": "catalogue"}
        for name, pin in found.items()
    }
    pins.CATALOGUE.write_text(pins.catalogue_text(fresh), encoding="utf-8")
    for name, pin in fresh.items():
        old = known[name].get("version")
        moved = pin["version"] != old or pin["input"] != known[name].get("input")
        print(f"{name}: {'changed' if moved else 'as before'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Resolving 20 models against one round trip, from an API that takes 200 ms for each answer.

    .venv/bin/python benchmarks/resolve_speed.py [runs]

Prints medians over the runs (5 by default) and their ratio. Each run is a new process, so that
importing the SDK is paid as in `copier copy`; it is reported apart.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.model_api import (  # noqa: E402
    TOKEN,
    ModelApi,
    load_extension,
    record,
    serving,
)

MODELS = [f"owner/model-{number}" for number in range(20)]
LATENCY = 0.2  # seconds


def resolve() -> None:
    """Resolve the models of the API that the environment names; prints the seconds of each part."""
    began = time.perf_counter()
    import replicate  # noqa: F401

    imported = time.perf_counter()
    api = load_extension("replicate_api")
    api.resolve([(name, None) for name in MODELS], TOKEN, "2026-01-01", ())
    print(json.dumps([imported - began, time.perf_counter() - imported]))


def round_trip(api: ModelApi) -> float:
    """The seconds of one answer to the plainest client."""
    request = urllib.request.Request(f"{api.url}/models/{MODELS[0]}")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    began = time.perf_counter()
    urllib.request.urlopen(request, timeout=10).read()
    return time.perf_counter() - began


def main() -> None:
    if sys.argv[1:] == ["--resolve"]:
        resolve()
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    imports, resolving, single = [], [], []
    with serving({name: record(name) for name in MODELS}) as api:
        api.latency = LATENCY
        command = [sys.executable, __file__, "--resolve"]
        for _ in range(runs):
            single.append(round_trip(api))
            done = subprocess.run(command, env=api.env(), capture_output=True, check=True)
            imported, resolved = json.loads(done.stdout)
            imports.append(imported)
            resolving.append(resolved)
    one, all_ = statistics.median(single), statistics.median(resolving)
    print(f"one round trip        {one:6.2f} s")
    print(f"{len(MODELS)} models resolved    {all_:6.2f} s")
    print(f"ratio                 {all_ / one:6.2f}")
    print(f"importing the SDK     {statistics.median(imports):6.2f} s, apart from that")


if __name__ == "__main__":
    main()

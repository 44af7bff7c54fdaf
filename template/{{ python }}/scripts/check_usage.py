"""What predictions cost: `uv run scripts/check_usage.py [--days 1] [--json]`. Spends nothing."""

from __future__ import annotations

import argparse
import json
import time

from common import open_service, run
from inference.service import with_price
from inference.state import UNKNOWN


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=1)
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args()
    service = open_service()
    rows = service.store.usage(time.time() - arguments.days * 86_400)
    predictions = [with_price(row, service.settings) for row in rows]
    unknown = [row.id for row in rows if row.error == UNKNOWN]
    totals = {
        "predictions": len(rows),
        "predict_seconds": round(sum(row.predict_seconds or 0 for row in rows), 3),
        "estimate": round(sum(each["estimate"] or 0 for each in predictions), 6),
        "without_price": sum(each["estimate"] is None for each in predictions),
        "outcome_unknown": unknown,
    }
    if arguments.json:
        print(json.dumps({"totals": totals, "predictions": predictions}, indent=2))
        return 0
    for each in predictions:
        estimate = "no price" if each["estimate"] is None else f"{each['estimate']:.4f}"
        seconds = each["predict_seconds"] or 0
        print(
            f"{each['prediction']}  {each['model']}  {each['status']}  {seconds:.2f} s  {estimate}"
        )
    print(
        f"{totals['predictions']} predictions, {totals['predict_seconds']} s,"
        f" estimated at {totals['estimate']} ({totals['without_price']} without a price)"
    )
    for row_id in unknown:
        print(f"outcome unknown, may have been billed: {row_id}")
    return 0


if __name__ == "__main__":
    run(main)

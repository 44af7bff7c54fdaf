"""What predictions cost: `uv run scripts/check_usage.py [--days 1] [--json]`. Spends nothing."""

from __future__ import annotations

import argparse
import json
import time

from app.main import build_service
from inference.service import with_price
from inference.settings import load_settings
from inference.state import UNKNOWN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=1)
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args()
    settings = load_settings()
    rows = build_service(settings).store.usage(time.time() - arguments.days * 86_400)
    predictions = [with_price(row, settings) for row in rows]
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
        return
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


if __name__ == "__main__":
    main()

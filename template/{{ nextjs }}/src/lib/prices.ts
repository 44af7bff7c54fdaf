/** What a prediction may have cost, where a price is set. */
import type { Row } from "./prediction.ts";
import type { Settings } from "./settings.ts";
import { UNKNOWN } from "./state.ts";

/** The estimated cost of one prediction, null where no price is set. */
export function price(settings: Settings, model: string, predictSeconds: number): number | null {
  const its = settings.modelSettings[model];
  if (its?.price_per_second === undefined && its?.price_per_run === undefined) return null;
  return (its.price_per_second ?? 0) * predictSeconds + (its.price_per_run ?? 0);
}

/** What it may have cost, nothing where Replicate never had it; null where no price is set. */
function estimate(row: Row, settings: Settings): number | null {
  const cost = price(settings, row.model, row.predict_seconds ?? 0);
  const sent = row.replicate_id !== null || row.error === UNKNOWN;
  return cost === null || sent ? cost : 0;
}

/** The one line about a prediction's cost that the log and `check-usage` share. */
export function withPrice(row: Row, settings: Settings) {
  return {
    prediction: row.id,
    replicate_id: row.replicate_id,
    model: row.model,
    status: row.status,
    predict_seconds: row.predict_seconds,
    estimate: estimate(row, settings),
  };
}

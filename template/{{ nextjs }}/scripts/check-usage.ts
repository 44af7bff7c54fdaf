/** What predictions cost: `npx tsx scripts/check-usage.ts [--days 1] [--json]`. Spends nothing. */
import { given, misused, openService, run } from "./command.ts";

const usage = "npx tsx scripts/check-usage.ts [--days 1] [--json]";
const { values } = given(usage, {
  options: { days: { type: "string", default: "1" }, json: { type: "boolean" } },
});
const days = Number(values.days);
if (!(days > 0)) misused(`--days ${values.days}: a number above 0, please`);
const { withPrice } = await import("../src/lib/prices.ts");
const { UNKNOWN } = await import("../src/lib/state.ts");

await run(async () => {
  const { settings, store } = await openService();
  const rows = await store.usage(Date.now() / 1000 - days * 86_400);
  const predictions = rows.map((row) => withPrice(row, settings));
  const sum = (numbers: (number | null)[], digits: number) =>
    Number(numbers.reduce<number>((total, one) => total + (one ?? 0), 0).toFixed(digits));
  const totals = {
    predictions: rows.length,
    predict_seconds: sum(
      rows.map((row) => row.predict_seconds),
      3,
    ),
    estimate: sum(
      predictions.map((each) => each.estimate),
      6,
    ),
    without_price: predictions.filter((each) => each.estimate === null).length,
    outcome_unknown: rows.filter((row) => row.error === UNKNOWN).map((row) => row.id),
  };
  if (values.json) {
    console.log(JSON.stringify({ totals, predictions }, null, 2));
    return 0;
  }
  for (const each of predictions) {
    const seconds = `${(each.predict_seconds ?? 0).toFixed(2)} s`;
    const estimate = each.estimate === null ? "no price" : each.estimate.toFixed(4);
    console.log([each.prediction, each.model, each.status, seconds, estimate].join("  "));
  }
  console.log(
    `${totals.predictions} predictions, ${totals.predict_seconds} s,` +
      ` estimated at ${totals.estimate} (${totals.without_price} without a price)`,
  );
  for (const id of totals.outcome_unknown) {
    console.log(`outcome unknown, may have been billed: ${id}`);
  }
  return 0;
});

// What the store holds, in six figures.

import { bytes, count, date } from "../format.js";

/** Fill the facts below `root` from the answers of `/v1/symbols` and `/v1/stats`. */
export function showStore(root, symbols, stats) {
  const series = symbols.flatMap((entry) => entry.series);
  const rows = series.reduce((sum, s) => sum + s.rows, 0);
  const size = stats.store.bytes;
  const held = rows > 0;
  const facts = {
    symbols: count(symbols.length),
    rows: count(rows),
    bytes: size === undefined ? "in memory" : bytes(size),
    "per-row": size === undefined || !held ? "–" : `${(size / rows).toFixed(1)} B`,
    first: held ? date(series.reduce((least, s) => Math.min(least, s.first), Infinity)) : "–",
    last: held ? date(series.reduce((most, s) => Math.max(most, s.last), -Infinity)) : "–",
  };
  for (const [name, text] of Object.entries(facts)) root.querySelector(`[data-fact="${name}"]`).textContent = text;
}

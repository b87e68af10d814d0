// The intervals of bars, finest first, what can be made from what, and which one suits a view.

const SECONDS = new Map([
  ["1s", 1], ["5s", 5], ["15s", 15], ["30s", 30],
  ["1m", 60], ["5m", 300], ["15m", 900], ["30m", 1800],
  ["1h", 3600], ["4h", 14_400],
  ["1d", 86_400], ["1w", 604_800], ["1mo", 2_592_000],
]);

const DAY_S = 86_400;
const SUITABLE_BAR_PX = 4;
const COVERING_SHARE = 0.5;
const FEW_DAYS = 20;

/** All names, finest first. */
export const INTERVALS = [...SECONDS.keys()];

/** The names that the digit keys 1 to 9 choose. */
export const DIGIT_INTERVALS = INTERVALS.slice(INTERVALS.indexOf("1m"));

/** Nominal seconds of an interval; a month counts 30 days. */
export const seconds = (interval) => SECONDS.get(interval);

/** Whether edges follow the calendar instead of the clock. */
export const byCalendar = (interval) => seconds(interval) >= DAY_S;

function divides(finer, coarser) {
  if (finer === "1w" || seconds(finer) >= seconds(coarser)) return false;
  return byCalendar(coarser) || seconds(coarser) % seconds(finer) === 0;
}

/** Stored bar intervals of a symbol's series (`[{kind, interval, first, last, rows}]`), finest first. */
export function stored(series) {
  const held = new Set(series.filter((s) => s.kind === "bars").map((s) => s.interval));
  return INTERVALS.filter((interval) => held.has(interval));
}

/** The intervals that are stored or can be made from what is, finest first. */
export function available(series) {
  if (series.some((s) => s.kind === "trades")) return INTERVALS;
  const held = stored(series);
  return INTERVALS.filter((i) => held.includes(i) || held.some((finer) => divides(finer, i)));
}

/** Estimated bars per second of an interval: markets that close have fewer than the clock would give. */
export function density(interval, series) {
  const bars = series.filter((s) => s.kind === "bars");
  const own = bars.find((s) => s.interval === interval);
  if (own) return own.rows / (own.last - own.first + seconds(interval));
  const from = bars.find((s) => divides(s.interval, interval));
  if (!from) return 1 / seconds(interval);
  const busy = Math.min(1, (from.rows * seconds(from.interval)) / (from.last - from.first + seconds(from.interval)));
  if (!byCalendar(interval)) return busy / seconds(interval);
  const closesAtWeekends = interval === "1d" && busy < 0.8;
  return (closesAtWeekends ? 5 / 7 : 1) / seconds(interval);
}

const overlap = ({ first, last }, { from, to }) => Math.max(0, Math.min(last, to) - Math.max(first, from));

// The series that reach over most of what is held in the range: zooming in must not lead to where there is nothing.
function covering(series, range) {
  const most = Math.max(0, ...series.map((s) => overlap(s, range)));
  return most === 0 ? series : series.filter((s) => overlap(s, range) >= most * COVERING_SHARE);
}

/** The intervals that can be shown over the range `{from, to}`, finest first. */
export const availableOver = (range, series) => available(covering(series, range));

/** The finest interval whose bars over the range fill `width` pixels without crowding. */
export function suitable(range, width, series) {
  const choices = availableOver(range, series);
  const fits = (interval) => (range.to - range.from) * density(interval, series) * SUITABLE_BAR_PX <= width;
  return choices.find(fits) ?? choices.at(-1);
}

/**
 * The interval that a symbol is first shown in on so many pixels: days where there are some weeks of them, else what
 * fills them with all there is; undefined when it has no bars.
 */
export function primary(series, width) {
  const held = series.filter((s) => s.kind === "bars" || s.kind === "trades");
  if (held.length === 0) return undefined;
  const range = { from: Math.min(...held.map((s) => s.first)), to: Math.max(...held.map((s) => s.last)) };
  const days = (range.to - range.from) * density("1d", series);
  return days >= FEW_DAYS && available(series).includes("1d") ? "1d" : suitable(range, width, series);
}

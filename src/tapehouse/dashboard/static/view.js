// What is looked at: a symbol, an interval, a span of time. It fetches what that needs, and no more than that.

import { Problem } from "./data/api.js";
import { availableOver, density, primary, seconds, suitable } from "./data/intervals.js";

const AUTO = "auto";
const FINER_ABOVE_PX = 24;
const COARSER_BELOW_PX = 2;
const SOON_FINER_ABOVE_PX = 14;
const SOON_COARSER_BELOW_PX = 3.5;
const CROWDED_BAR_PX = 1;
const PREFETCH_SHARE = 0.7;
const PAGE_SCREENS = 1.5;
const PAGE_MIN_BARS = 500;
const PAGE_MAX_BARS = 5_000;
const SETTLE_MS = 90;

const finest = (next, fit) => next && (seconds(fit) < seconds(next) ? fit : next);
const coarsest = (next, fit) => next && (seconds(fit) > seconds(next) ? fit : next);

/**
 * Emits: `range` (the visible span moved), `shown` (another window is on the chart), `grown` (it got more bars),
 * `busy` (true or false), `empty` (nothing to show), `failed` (a `Problem`).
 */
export class View extends EventTarget {
  symbol = null;
  series = [];
  zone = "UTC";
  mode = AUTO;
  window = null;
  narrowed = false; // whether what is on show is only a part of the span that was asked for

  #history;
  #chart;
  #opening = new AbortController();
  #extending = new Map();
  #settling = null;
  #pending = 0;

  constructor(history, chart) {
    super();
    this.#history = history;
    this.#chart = chart;
    chart.onRange(() => this.#moved());
  }

  get interval() {
    return this.window?.interval ?? null;
  }

  /** The visible span `{from, to}` in UTC seconds, null before there is one. */
  get range() {
    const positions = this.window && this.#chart.range;
    return positions && { from: this.window.timeAt(positions.from), to: this.window.timeAt(positions.to) };
  }

  /** Look at a symbol: in that interval or `auto`, over that range or its newest bars. Its days begin in `zone`. */
  async show({ symbol, series, zone, mode = this.mode, range = null }) {
    Object.assign(this, { symbol, series, zone, mode });
    const interval = this.#intervalFor(range);
    await this.#open(interval, range);
  }

  /** Choose an interval, or `auto`; the span stays. */
  async choose(mode) {
    this.mode = mode;
    await this.#open(this.#intervalFor(this.range), this.range);
  }

  /** Look at another span of the same symbol. */
  async jump(range) {
    await this.#open(this.#intervalFor(range), range);
  }

  /** Look at the newest bars, as many as fit. */
  async jumpToNewest() {
    await this.#open(this.interval ?? primary(this.series, this.#chart.width), null, this.#chart.range);
  }

  /** Look at nothing: the store has no symbol, or not the one that was on show. What was fetched is forgotten. */
  leave() {
    this.#abandon();
    this.#history.clear();
    Object.assign(this, { symbol: null, series: [], window: null });
    this.#chart.clear();
  }

  /** Fetch again what is on show: the store has changed. */
  async reload() {
    const followed = this.#showsNewest();
    const { interval, range } = this;
    this.#history.clear();
    await this.#open(interval ?? this.#intervalFor(range), followed ? null : range, followed ? this.#chart.range : null);
  }

  /** Take a bar of what is on show as it is now. */
  update(bar) {
    const before = this.window?.bars.length;
    if (!this.window?.update(bar)) return;
    this.#chart.update(this.window.bars.length > before);
    this.#emit("grown");
  }

  #showsNewest() {
    return Boolean(this.window?.atEnd && this.#chart.range && this.#chart.range.to >= this.window.bars.length - 1);
  }

  #intervalFor(range) {
    if (this.mode !== AUTO) return this.mode;
    return range ? suitable(range, this.#chart.width, this.series) : primary(this.series, this.#chart.width);
  }

  // Enough for a screen on either side of what is seen.
  #pageBars(interval, range) {
    const seen = range ? (range.to - range.from) * density(interval, this.series) : 0;
    const wanted = Math.ceil(Math.max(seen, this.#chart.comfortableBars) * PAGE_SCREENS);
    return Math.min(PAGE_MAX_BARS, Math.max(PAGE_MIN_BARS, wanted));
  }

  async #open(interval, asked, width = null) {
    this.#abandon();
    if (!interval) return this.#placeNothing();
    const range = asked && this.#bearable(interval, asked);
    this.narrowed = Boolean(range) && range.to - range.from < asked.to - asked.from;
    const { signal } = this.#opening;
    await this.#working(async () => {
      const bars = this.#pageBars(interval, range);
      const window = await this.#history.open(this.symbol, interval, range, bars, { signal });
      if (!signal.aborted) this.#place(window, range, width);
    });
  }

  // A range with more bars than pixels is narrowed: to its newest bars when it reaches to the end, else to its middle.
  #bearable(interval, { from, to }) {
    const perSecond = density(interval, this.series);
    if ((to - from) * perSecond * CROWDED_BAR_PX <= this.#chart.width) return { from, to };
    const span = this.#chart.comfortableBars / perSecond;
    const last = Math.max(...this.series.map((s) => s.last));
    const start = to >= last ? last - span : (from + to - span) / 2;
    return { from: start, to: start + span };
  }

  #abandon() {
    this.#opening.abort();
    for (const extension of this.#extending.values()) extension.abort();
    this.#extending.clear();
    this.#opening = new AbortController();
  }

  #placeNothing() {
    this.window = null;
    this.#chart.clear();
    this.#emit("empty");
  }

  #place(window, range, width) {
    this.window = window;
    const placed = range && window.bars.length > 0 ? this.#positions(window, range) : null;
    this.#chart.show(window, this.zone, placed);
    if (width) this.#chart.range = this.#chart.newest(width.to - width.from);
    this.#emit(window.bars.length > 0 ? "shown" : "empty", { clamped: Boolean(placed?.clamped) });
    this.#settle();
  }

  // A range without a bar in it would leave the chart blank: then go to the nearest bar.
  #positions(window, range) {
    const from = window.positionOf(range.from);
    const to = window.positionOf(range.to);
    const end = window.bars.length - 1;
    if (to < 0) return { from: 0, to: Math.max(to - from, 1), clamped: true };
    if (from > end) return { from: end - Math.max(to - from, 1), to: end, clamped: true };
    return { from, to: Math.max(to, from + 1) };
  }

  #moved() {
    this.#emit("range");
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#settle(), SETTLE_MS);
    this.#extendEdges();
  }

  #settle() {
    if (!this.range) return;
    const better = this.mode === AUTO ? this.#betterInterval() : null;
    if (better) this.#open(better, this.range);
    else {
      this.#extendEdges();
      if (this.mode === AUTO) this.#prefetch();
    }
  }

  get #barPx() {
    const { from, to } = this.#chart.range;
    return this.#chart.width / (to - from);
  }

  // Hysteresis: a change either way lands well inside the limits of the next interval.
  #betterInterval() {
    if (this.#barPx > FINER_ABOVE_PX) return finest(this.#neighbour(-1), this.#fit);
    if (this.#barPx < COARSER_BELOW_PX) return coarsest(this.#neighbour(1), this.#fit);
    return null;
  }

  get #fit() {
    return suitable(this.range, this.#chart.width, this.series);
  }

  // The next finer (-1) or coarser (1) interval that can be shown here, or null.
  #neighbour(step) {
    const choices = availableOver(this.range, this.series);
    const now = seconds(this.interval);
    const found = step < 0 ? choices.findLast((i) => seconds(i) < now) : choices.find((i) => seconds(i) > now);
    return found ?? null;
  }

  // Have the next interval at hand before the zoom gets there.
  #prefetch() {
    const step = this.#barPx > SOON_FINER_ABOVE_PX ? -1 : this.#barPx < SOON_COARSER_BELOW_PX ? 1 : 0;
    const next = step === 0 ? null : this.#neighbour(step);
    if (next === null) return;
    const options = { signal: this.#opening.signal, priority: "low" };
    const bars = this.#pageBars(next, this.range);
    this.#working(() => this.#history.open(this.symbol, next, this.range, bars, options));
  }

  #extendEdges() {
    const range = this.#chart.range;
    if (!range) return;
    const margin = (range.to - range.from) * PREFETCH_SHARE;
    if (!this.window.atStart && range.from < margin) this.#extend("older");
    if (!this.window.atEnd && range.to > this.window.bars.length - margin) this.#extend("newer");
  }

  async #extend(side) {
    if (this.#extending.has(side)) return;
    const abort = new AbortController();
    this.#extending.set(side, abort);
    const { window } = this;
    await this.#working(async () => {
      const bars = this.#pageBars(window.interval, this.range);
      const shift = await this.#history.extend(window, side, bars, { signal: abort.signal });
      if (window !== this.window || abort.signal.aborted) return;
      this.#extending.delete(side);
      this.#chart.redraw(shift);
      this.#emit("grown");
      this.#extendEdges();
    });
    if (this.#extending.get(side) === abort) this.#extending.delete(side);
  }

  async #working(task) {
    if (this.#pending++ === 0) this.#emit("busy", true);
    try {
      await task();
    } catch (problem) {
      if (problem instanceof Problem) this.#emit("failed", problem);
      else if (problem.name !== "AbortError") throw problem;
    } finally {
      if (--this.#pending === 0) this.#emit("busy", false);
    }
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

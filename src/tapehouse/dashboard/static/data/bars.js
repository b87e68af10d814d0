// Bars that have been fetched: contiguous windows on a series, kept so that no range is asked for twice.

import { seconds } from "./intervals.js";

const KEPT_BARS = 400_000;
const WINDOW_BARS = 60_000;
const PITCH_SAMPLE = 30;

/** A contiguous run of the bars of one series, ascending. Positions in it are fractional, and go on beyond both ends. */
export class Window {
  bars = [];
  atStart = false;
  atEnd = false;

  constructor(symbol, interval) {
    this.symbol = symbol;
    this.interval = interval;
  }

  /** Take the page before the first bar, none being before it when `exhausted`; returns by how much positions moved. */
  prepend(bars, exhausted) {
    this.bars = bars.concat(this.bars);
    this.atStart = exhausted;
    if (this.bars.length > WINDOW_BARS) {
      this.bars.length = WINDOW_BARS;
      this.atEnd = false;
    }
    return bars.length;
  }

  /** Take the page after the last bar, none being after it when `exhausted`; returns by how much positions moved. */
  append(bars, exhausted) {
    this.bars = this.bars.concat(bars);
    this.atEnd = exhausted;
    const surplus = Math.max(0, this.bars.length - WINDOW_BARS);
    if (surplus > 0) {
      this.bars = this.bars.slice(surplus);
      this.atStart = false;
    }
    return -surplus;
  }

  /** Take a bar as it is now: the last one anew, or the next one. Returns whether it is one of the two. */
  update(bar) {
    if (!this.atEnd || this.bars.length === 0 || bar.time < this.last) return false;
    if (bar.time === this.last) this.bars[this.bars.length - 1] = bar;
    else this.bars.push(bar);
    return true;
  }

  get first() {
    return this.bars[0]?.time;
  }

  get last() {
    return this.bars.at(-1)?.time;
  }

  /** Whether any part of the range `{from, to}` lies inside. */
  touches({ from, to }) {
    return this.bars.length > 0 && this.first <= to && this.last >= from;
  }

  /** The position of a time. */
  positionOf(time) {
    const { bars } = this;
    if (bars.length === 0) return 0;
    if (time <= this.first) return (time - this.first) / this.#pitch(0, PITCH_SAMPLE);
    const end = bars.length - 1;
    if (time >= this.last) return end + (time - this.last) / this.#pitch(end - PITCH_SAMPLE, end);
    const i = this.#floor(time);
    return i + (time - bars[i].time) / (bars[i + 1].time - bars[i].time);
  }

  /** The time at a position. */
  timeAt(position) {
    const { bars } = this;
    const end = bars.length - 1;
    if (position <= 0) return this.first + position * this.#pitch(0, PITCH_SAMPLE);
    if (position >= end) return this.last + (position - end) * this.#pitch(end - PITCH_SAMPLE, end);
    const i = Math.floor(position);
    return bars[i].time + (position - i) * (bars[i + 1].time - bars[i].time);
  }

  #floor(time) {
    let low = 0;
    let high = this.bars.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.bars[middle].time <= time) low = middle;
      else high = middle;
    }
    return low;
  }

  // Mean seconds from bar to bar near an end: wider than the interval where a market closes.
  #pitch(from, to) {
    const low = Math.max(0, from);
    const high = Math.min(this.bars.length - 1, to);
    if (high <= low) return seconds(this.interval);
    return (this.bars[high].time - this.bars[low].time) / (high - low);
  }
}

/** The windows fetched so far, the least recently used forgotten first. */
export class History {
  #api;
  #windows = new Map();

  constructor(api) {
    this.#api = api;
  }

  /** The window on a series that touches the range, when there is one already. */
  peek(symbol, interval, range) {
    const window = this.#windows.get(`${symbol} ${interval}`);
    if (!window || !(range ? window.touches(range) : window.atEnd)) return null;
    this.#keep(window);
    return window;
  }

  /** A window on the bars around the range, or without one on the newest. */
  async open(symbol, interval, range, count, options) {
    const known = this.peek(symbol, interval, range);
    if (known) return known;
    const window = new Window(symbol, interval);
    await (range ? this.#fillAround(window, range, count, options) : this.#fillNewest(window, count, options));
    this.#keep(window);
    return window;
  }

  /** Fetch `count` more bars on one side, `older` or `newer`; promises by how much positions in the window moved. */
  async extend(window, side, count, options) {
    const bound = side === "older" ? { end: window.first } : { start: window.last + 1 };
    const { bars, exhausted } = await this.#api.bars(window.symbol, window.interval, { ...bound, limit: count, ...options });
    return side === "older" ? window.prepend(bars, exhausted) : window.append(bars, exhausted);
  }

  /** Forget everything: the store has changed. */
  clear() {
    this.#windows.clear();
  }

  async #fillAround(window, { from, to }, count, options) {
    const middle = Math.round((from + to) / 2);
    const ask = (bound) => this.#api.bars(window.symbol, window.interval, { ...bound, limit: count, ...options });
    const [older, newer] = await Promise.all([ask({ end: middle }), ask({ start: middle })]);
    window.append(newer.bars, newer.exhausted);
    window.prepend(older.bars, older.exhausted);
  }

  async #fillNewest(window, count, options) {
    const { bars, exhausted } = await this.#api.bars(window.symbol, window.interval, { limit: count, ...options });
    window.prepend(bars, exhausted);
    window.atEnd = true;
  }

  #keep(window) {
    const key = `${window.symbol} ${window.interval}`;
    this.#windows.delete(key);
    this.#windows.set(key, window);
    let total = 0;
    for (const { bars } of this.#windows.values()) total += bars.length;
    for (const [oldest, { bars }] of this.#windows) {
      if (total <= KEPT_BARS || oldest === key) break;
      total -= bars.length;
      this.#windows.delete(oldest);
    }
  }
}

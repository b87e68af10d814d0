// The chart: candles, volume, crosshair. Positions are those of the window that it shows.

import {
  CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, PriceScaleMode, createChart,
} from "../vendor/lightweight-charts.mjs";
import { byCalendar, seconds } from "../data/intervals.js";
import { date, dayIn, decimals, moment, volume } from "../format.js";

const VOLUME_SHARE = 0.22;
const DECIMALS_SAMPLE = 400;
const RIGHT_MARGIN_BARS = 4;
const BAR_PX = 7;
const MIN_BAR_PX = 0.5;
const ALL_BARS_SHARE = 1.25;
const ZOOM_STEP = 1.4;

const COLOURS = ["text-muted", "grid", "line", "up", "down", "up-soft", "down-soft", "surface", "crosshair", "crosshair-label"];

function palette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => [name, style.getPropertyValue(`--${name}`).trim()];
  return Object.fromEntries(COLOURS.map(read));
}

function layoutOptions(colour) {
  const line = { color: colour.crosshair, labelBackgroundColor: colour["crosshair-label"] };
  return {
    layout: {
      background: { type: ColorType.Solid, color: colour.surface },
      textColor: colour["text-muted"],
      panes: { separatorColor: colour.line, separatorHoverColor: colour.grid },
    },
    grid: { vertLines: { color: colour.grid }, horzLines: { color: colour.grid } },
    crosshair: { vertLine: line, horzLine: line },
    rightPriceScale: { borderColor: colour.line },
    timeScale: { borderColor: colour.line },
  };
}

function candleOptions(colour) {
  return {
    upColor: colour.up, borderUpColor: colour.up, wickUpColor: colour.up,
    downColor: colour.down, borderDownColor: colour.down, wickDownColor: colour.down,
  };
}

/** A lightweight-charts chart that fills its container and follows the page's theme. */
export class Chart {
  #chart;
  #candles;
  #volume;
  #time;
  #colour = palette();
  #window = null;
  #target = null;
  #onAxis = (time) => time;

  constructor(container) {
    this.#chart = createChart(container, {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.06 } },
      timeScale: { shiftVisibleRangeOnNewBar: false, rightOffset: RIGHT_MARGIN_BARS },
      kineticScroll: { mouse: false, touch: !matchMedia("(prefers-reduced-motion: reduce)").matches },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { priceLineVisible: false });
    this.#volume = this.#addVolume();
    this.#time = this.#chart.timeScale();
    this.#time.subscribeSizeChange(() => this.#window && this.#limitZoom());
    const { fontFamily, fontSize } = getComputedStyle(document.body);
    this.#chart.applyOptions({ layout: { fontFamily, fontSize: parseFloat(fontSize) - 2 } });
    this.retheme();
  }

  #addVolume() {
    const format = { type: "custom", minMove: 1e-8, formatter: volume };
    const series = this.#chart.addSeries(HistogramSeries, { priceFormat: format, priceLineVisible: false, lastValueVisible: false }, 1);
    series.priceScale().applyOptions({ scaleMargins: { top: 0.1, bottom: 0 } });
    const [main, below] = this.#chart.panes();
    main.setStretchFactor(1 - VOLUME_SHARE);
    below.setStretchFactor(VOLUME_SHARE);
    return series;
  }

  /** Call back with positions `{from, to}` whenever the visible range changes. */
  onRange(callback) {
    this.#time.subscribeVisibleLogicalRangeChange((range) => range && this.#window && callback(range));
  }

  /** Call back with the position of the bar under the crosshair, or null. */
  onHover(callback) {
    this.#chart.subscribeCrosshairMove(({ logical, point }) => {
      callback(point && this.#window?.bars[logical] ? logical : null);
    });
  }

  get width() {
    return this.#time.width();
  }

  /** How many bars fit at a comfortable size. */
  get comfortableBars() {
    return Math.max(20, Math.round(this.width / BAR_PX));
  }

  /** The visible positions, null before there is anything to see. */
  get range() {
    return this.#window?.bars.length ? (this.#target ?? this.#time.getVisibleLogicalRange()) : null;
  }

  // The library moves in its next frame; until then, where it is going to is where it is.
  set range({ from, to }) {
    const target = { from, to };
    this.#target = target;
    this.#time.setVisibleLogicalRange(target);
    requestAnimationFrame(() => {
      if (this.#target === target) this.#target = null;
    });
  }

  /** Show a window at these positions; without them, its newest bars. Days are those of the zone. */
  show(window, zone, range) {
    this.#window = window;
    const days = byCalendar(window.interval);
    this.#onAxis = days ? (time) => dayIn(zone, time) : (time) => time;
    const places = decimals(window.bars.slice(-DECIMALS_SAMPLE).flatMap((bar) => [bar.open, bar.high, bar.low, bar.close]));
    this.places = places;
    this.#candles.applyOptions({ priceFormat: { type: "price", precision: places, minMove: 10 ** -places } });
    this.#candles.priceScale().applyOptions({ autoScale: true });
    this.#chart.applyOptions({ localization: { timeFormatter: days ? date : moment } });
    this.#time.applyOptions({ timeVisible: !days, secondsVisible: seconds(window.interval) < 60 });
    this.#draw();
    this.range = range ?? this.newest(this.comfortableBars);
  }

  /** Show nothing. */
  clear() {
    this.#window = null;
    this.#candles.setData([]);
    this.#volume.setData([]);
  }

  /** Draw the window again after it has grown; its positions moved by `shift`. */
  redraw(shift) {
    const range = this.range;
    this.#draw();
    if (range) this.range = { from: range.from + shift, to: range.to + shift };
  }

  /** Draw the last bar as it is now; `isNew` says that it was not there before, which moves on who looks at the newest. */
  update(isNew) {
    const { range } = this;
    const bar = this.#window.bars.at(-1);
    const time = this.#onAxis(bar.time);
    this.#candles.update(this.#candle(bar, time));
    this.#volume.update(this.#volumeBar(bar, time));
    const end = this.#window.bars.length - 1;
    if (isNew && range && range.to >= end - 1) this.range = { from: range.from + 1, to: range.to + 1 };
  }

  /** The positions of the newest `count` bars, with some air on the right. */
  newest(count) {
    const end = this.#window.bars.length - 1 + RIGHT_MARGIN_BARS;
    return { from: end - Math.min(count, Math.max(end, 20)), to: end };
  }

  #draw() {
    const { bars } = this.#window;
    const times = bars.map((bar) => this.#onAxis(bar.time));
    this.#candles.setData(bars.map((bar, i) => this.#candle(bar, times[i])));
    this.#volume.setData(bars.map((bar, i) => this.#volumeBar(bar, times[i])));
    this.#limitZoom();
  }

  // With all bars there are in sight, there is nothing to zoom out to.
  #limitZoom() {
    const { bars, atStart, atEnd } = this.#window;
    const least = this.width / (ALL_BARS_SHARE * (bars.length + RIGHT_MARGIN_BARS));
    const complete = atStart && atEnd;
    this.#time.applyOptions({ minBarSpacing: complete ? Math.max(MIN_BAR_PX, Math.min(BAR_PX, least)) : MIN_BAR_PX });
  }

  // A bar whose parts are not all there is drawn hollow.
  #candle({ open, high, low, close, complete }, time) {
    const candle = { time, open, high, low, close };
    return complete ? candle : { ...candle, color: this.#colour.surface };
  }

  #volumeBar({ open, close, volume: value }, time) {
    return { time, value, color: this.#colour[close >= open ? "up-soft" : "down-soft"] };
  }

  zoom(direction) {
    if (!this.range) return;
    const { from, to } = this.range;
    const { bars, atEnd } = this.#window;
    const most = this.width / this.#time.options().minBarSpacing;
    const count = Math.min(most, (to - from) * (direction > 0 ? 1 / ZOOM_STEP : ZOOM_STEP));
    // Beyond the newest bar there is nothing to see: what is added is past.
    const newest = direction < 0 && atEnd ? bars.length - 1 + RIGHT_MARGIN_BARS : Infinity;
    const end = Math.min((from + to + count) / 2, newest);
    this.range = { from: end - count, to: end };
  }

  /** Move by a share of the width; negative is back in time. */
  pan(share) {
    if (!this.range) return;
    const { from, to } = this.range;
    const step = (to - from) * share;
    this.range = { from: from + step, to: to + step };
  }

  get logarithmic() {
    return this.#candles.priceScale().options().mode === PriceScaleMode.Logarithmic;
  }

  set logarithmic(on) {
    this.#candles.priceScale().applyOptions({ mode: on ? PriceScaleMode.Logarithmic : PriceScaleMode.Normal });
  }

  /** Read the colours of the page again. */
  retheme() {
    this.#colour = palette();
    this.#chart.applyOptions(layoutOptions(this.#colour));
    this.#candles.applyOptions(candleOptions(this.#colour));
    if (this.#window) this.redraw(0);
  }
}

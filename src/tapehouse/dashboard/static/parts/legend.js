// What is written above the chart: the symbol, the bar under the crosshair, and where the bars came from.

import { byCalendar } from "../data/intervals.js";
import { count, opening, percent, price, volume, weekday } from "../format.js";

const STORED = "stored";

/** Fills the elements with `data-value` below `root`. */
export class Legend {
  #values = {};

  constructor(root) {
    for (const node of root.querySelectorAll("[data-value]")) this.#values[node.dataset.value] = node;
  }

  /** The window on show; its badges speak of the bars between two positions. */
  describe(window, { from, to }) {
    const seen = window.bars.slice(Math.max(0, Math.floor(from)), Math.max(0, Math.ceil(to) + 1));
    const made = new Set(seen.map((bar) => bar.madeFrom).filter((name) => name && name !== STORED));
    const incomplete = seen.filter((bar) => !bar.complete).length;
    this.#say("symbol", window.symbol);
    this.#say("interval", window.interval);
    this.#badge("made-from", made.size > 0 && `made from ${[...made].join(", ")}`);
    this.#badge("incomplete", incomplete > 0 && `${count(incomplete)} incomplete`);
  }

  /** Only a symbol, nothing of which can be shown. */
  name(symbol) {
    for (const node of Object.values(this.#values)) node.textContent = "";
    this.#badge("made-from", false);
    this.#badge("incomplete", false);
    this.#say("symbol", symbol);
  }

  /** One bar, and the change from the one before. */
  show(bar, before, { interval, zone, places }) {
    const direction = bar.close >= bar.open ? "up" : "down";
    const when = opening(bar.time, interval, zone);
    this.#say("clock", byCalendar(interval) ? "Date" : "UTC");
    this.#say("time", byCalendar(interval) ? when : `${weekday(bar.time)} ${when}`);
    for (const name of ["open", "high", "low", "close"]) {
      this.#say(name, price(bar[name], places));
      this.#values[name].dataset.direction = direction;
    }
    this.#say("volume", volume(bar.volume));
    this.#say("change", before ? percent(bar.close / before.close - 1) : "");
    this.#values.change.dataset.direction = before && bar.close < before.close ? "down" : "up";
  }

  #say(name, text) {
    this.#values[name].textContent = text;
  }

  #badge(name, text) {
    this.#values[name].hidden = !text;
    this.#say(name, text || "");
  }
}

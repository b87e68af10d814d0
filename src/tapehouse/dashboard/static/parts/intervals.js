// The choice of interval: a row of radio buttons, `auto` first.

import { INTERVALS, available, seconds, stored } from "../data/intervals.js";

const FINEST_SHOWN_S = 60;

/** Built once into `root`; calls back `onChoose(mode)`. */
export class IntervalChoice {
  #buttons = new Map();

  constructor(root, onChoose) {
    for (const mode of ["auto", ...INTERVALS]) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", role: "radio", textContent: mode === "auto" ? "Auto" : mode });
      button.addEventListener("click", () => button.ariaDisabled !== "true" && onChoose(mode));
      this.#buttons.set(mode, button);
      root.append(button);
    }
    this.series = [];
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** What the symbol has; seconds are offered only where there are any. */
  set series(series) {
    const can = available(series);
    const held = stored(series);
    for (const [mode, button] of this.#buttons) {
      if (mode === "auto") continue;
      const possible = can.includes(mode);
      button.hidden = seconds(mode) < FINEST_SHOWN_S && !possible;
      button.ariaDisabled = String(!possible);
      button.classList.toggle("stored", held.includes(mode));
      button.title = held.includes(mode) ? "stored" : possible ? "made from finer bars" : "nothing fine enough is stored";
    }
  }

  /** Which one is chosen, and which interval is on show. */
  mark(mode, interval) {
    for (const [name, button] of this.#buttons) {
      button.ariaChecked = String(name === mode);
      button.tabIndex = name === mode ? 0 : -1;
      button.classList.toggle("on-show", mode === "auto" && name === interval);
    }
    // On a narrow screen the row is longer than the screen.
    const seen = this.#buttons.get(mode === "auto" && interval ? interval : mode);
    const row = seen.parentElement;
    row.scrollLeft = seen.offsetLeft - (row.clientWidth - seen.offsetWidth) / 2;
  }

  /** Whether that one can be chosen now. */
  offers(mode) {
    const button = this.#buttons.get(mode);
    return Boolean(button) && !button.hidden && button.ariaDisabled !== "true";
  }

  // As in any group of radio buttons, the arrow keys choose the next one.
  #key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const choices = [...this.#buttons.values()].filter((button) => !button.hidden && button.ariaDisabled !== "true");
    const at = choices.indexOf(document.activeElement);
    const next = choices[(at + step + choices.length) % choices.length];
    next.focus();
    next.click();
    event.preventDefault();
    event.stopPropagation();
  }
}

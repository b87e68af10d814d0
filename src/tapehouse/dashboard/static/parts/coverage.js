// The coverage of a symbol: a strip of time for each series, with what is missing, and where the chart looks.

import { count, date, moment, opening, plural } from "../format.js";
import { seconds } from "../data/intervals.js";

const DAY_S = 86_400;
const TICK_PX = 96;
const TICK_LABEL_PX = 48;
const GAP_CONTEXT_BARS = 40;
const STEPS_MONTHS = [1, 3, 6, 12, 24, 60, 120, 240];
const STEPS_DAYS = [1, 2, 7];
const FAINTEST_GAP = 0.35;

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

const when = (item, time, zone) => (item.interval ? opening(time, item.interval, zone) : moment(time));

// Two openings as one text; a day is not said twice.
function between(from, until) {
  if (from === until) return from;
  const [day, clock] = until.split(" ");
  return `${from} to ${clock && from.startsWith(day) ? clock : until}`;
}

const barSeconds = (item) => (item.interval ? seconds(item.interval) : DAY_S);

function monthTicks(from, to, step) {
  const ticks = [];
  const start = new Date(from * 1000);
  const month = start.getUTCFullYear() * 12 + start.getUTCMonth();
  for (let m = Math.ceil(month / step) * step; ; m += step) {
    const time = Date.UTC(Math.floor(m / 12), m % 12) / 1000;
    if (time > to) return ticks;
    if (time >= from) ticks.push({ time, label: step >= 12 ? date(time).slice(0, -6) : date(time).slice(0, -3) });
  }
}

function dayTicks(from, to, step) {
  const ticks = [];
  for (let time = Math.ceil(from / DAY_S) * DAY_S; time <= to; time += step * DAY_S) ticks.push({ time, label: date(time).slice(-5) });
  return ticks;
}

// Labels on round dates, no closer than TICK_PX.
function ticks(from, to, width) {
  const most = Math.max(2, Math.floor(width / TICK_PX));
  const days = STEPS_DAYS.find((step) => (to - from) / (step * DAY_S) <= most);
  if (days) return dayTicks(from, to, days);
  const months = STEPS_MONTHS.find((step) => (to - from) / (step * 30 * DAY_S) <= most) ?? STEPS_MONTHS.at(-1);
  return monthTicks(from, to, months);
}

// The share of each pixel column that is missing.
function missingShares(item, toX, width) {
  const shares = new Float32Array(width);
  for (const { start, end } of item.missing) {
    const left = clamp(toX(start), 0, width);
    const right = clamp(toX(end), 0, width);
    for (let x = Math.floor(left); x < right; x++) shares[x] += Math.min(right, x + 1) - Math.max(left, x);
  }
  return shares;
}

function element(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** Draws into `root`; calls back `onJump({from, to})` for a gap, and `onCentre(time)` for a click on a strip. */
export class Coverage {
  #root;
  #axis;
  #eye;
  #popover;
  #onJump;
  #onCentre;
  #items = [];
  #canvases = [];
  #range = null;
  #zone = "UTC";

  constructor({ root, popover, onJump, onCentre }) {
    this.#root = root;
    this.#popover = popover;
    this.#onJump = onJump;
    this.#onCentre = onCentre;
    this.#eye = element("div", "coverage-eye");
    this.#axis = element("div", "coverage-axis");
    new ResizeObserver(() => this.#draw()).observe(root);
    root.addEventListener("pointerdown", (event) => this.#press(event));
    root.addEventListener("pointermove", (event) => event.buttons === 1 && this.#drag(event));
  }

  /** What is known before the coverage has been fetched: the series, not yet their gaps. */
  sketch(series, zone) {
    this.show(series.map((item) => ({ ...item, missing: [], missing_spans: null })), zone);
  }

  /** Show the series of one symbol, as the API answers them. Its days begin in `zone`. */
  show(items, zone) {
    this.#zone = zone;
    this.#items = [...items].sort((a, b) => barSeconds(b) - barSeconds(a));
    this.#canvases = [];
    const rows = this.#items.flatMap((item) => this.#row(item));
    this.#axis.replaceChildren();
    this.#eye.hidden = true;
    this.#root.replaceChildren(...rows, this.#axis, this.#eye);
    this.#draw();
  }

  /** The span that the chart shows. */
  set range(range) {
    this.#range = range;
    this.#drawEye();
  }

  /** Draw again, in the colours of the page. */
  retheme() {
    this.#draw();
  }

  #row(item) {
    const name = item.interval ?? item.kind;
    const canvas = element("canvas", "coverage-strip");
    const gaps = item.missing_spans === null ? "…" : plural(item.missing_spans, "gap");
    const held = `${when(item, item.first, this.#zone)} to ${when(item, item.last, this.#zone)}`;
    canvas.role = "img";
    canvas.ariaLabel = `${name}: ${plural(item.rows, "row")} from ${held}, ${gaps}`;
    canvas.title = held;
    this.#canvases.push(canvas);
    return [element("span", "coverage-name", name), canvas, element("span", "coverage-rows", count(item.rows)), this.#gaps(item, gaps)];
  }

  #gaps(item, label) {
    if (!item.missing_spans) return element("span", "coverage-whole", item.missing_spans === 0 ? "no gaps" : label);
    const button = element("button", "coverage-gaps", label);
    button.type = "button";
    button.title = `${plural(item.missing_bars, "bar")} missing by calendar ${item.calendar}`;
    button.addEventListener("click", () => this.#list(item, button));
    return button;
  }

  #list(item, button) {
    const name = item.interval ?? item.kind;
    const more = item.missing_spans > item.missing.length ? `, the newest ${count(item.missing.length)}` : "";
    const title = element("p", "gaps-title", `${name}: ${plural(item.missing_spans, "gap")}${more}, calendar ${item.calendar}`);
    const list = element("ul", "gaps");
    list.append(...item.missing.map((gap) => this.#gap(item, gap)));
    this.#popover.replaceChildren(title, list);
    const { right, top } = button.getBoundingClientRect();
    this.#popover.style.right = `${innerWidth - right}px`;
    this.#popover.style.bottom = `${innerHeight - top + 6}px`;
    this.#popover.showPopover();
    list.querySelector("button")?.focus();
  }

  #gap(item, gap) {
    const button = element("button", "gap");
    button.type = "button";
    const bar = barSeconds(item);
    const span = between(when(item, gap.start, this.#zone), when(item, Math.max(gap.start, gap.end - bar), this.#zone));
    button.append(element("span", "gap-span", span), element("span", "gap-bars", count(gap.bars)));
    button.addEventListener("click", () => {
      this.#popover.hidePopover();
      this.#onJump({ from: gap.start - GAP_CONTEXT_BARS * bar, to: gap.end + GAP_CONTEXT_BARS * bar });
    });
    const row = document.createElement("li");
    row.append(button);
    return row;
  }

  get #domain() {
    const from = Math.min(...this.#items.map((item) => item.first));
    const to = Math.max(...this.#items.map((item) => item.last + barSeconds(item)));
    return { from, to };
  }

  get #strip() {
    const box = this.#canvases[0].getBoundingClientRect();
    const { left } = this.#root.getBoundingClientRect();
    return { left: box.left - left, width: box.width };
  }

  #draw() {
    if (this.#items.length === 0) return;
    const { from, to } = this.#domain;
    const { left, width } = this.#strip;
    this.#items.forEach((item, i) => this.#drawStrip(item, this.#canvases[i], from, to));
    const last = to - ((to - from) * TICK_LABEL_PX) / width;
    const labels = ticks(from, last, width).map(({ time, label }) => {
      const tick = element("span", "tick", label);
      tick.style.left = `${(100 * (time - from)) / (to - from)}%`;
      return tick;
    });
    this.#axis.replaceChildren(...labels);
    this.#eye.style.setProperty("--left", `${left}px`);
    this.#drawEye();
  }

  #drawStrip(item, canvas, from, to) {
    const scale = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    Object.assign(canvas, { width, height });
    const colours = getComputedStyle(document.documentElement);
    const pen = canvas.getContext("2d");
    const toX = (time) => ((time - from) / (to - from)) * width;
    const start = toX(item.first);
    pen.fillStyle = colours.getPropertyValue("--held");
    pen.fillRect(start, 0, Math.max(scale, toX(item.last + barSeconds(item)) - start), height);
    pen.fillStyle = colours.getPropertyValue("--gap");
    missingShares(item, toX, width).forEach((share, x) => {
      if (share === 0) return;
      pen.globalAlpha = Math.min(1, FAINTEST_GAP + share);
      pen.fillRect(x, 0, 1, height);
    });
  }

  #drawEye() {
    this.#eye.hidden = !this.#range || this.#items.length === 0;
    if (this.#eye.hidden) return;
    const { from, to } = this.#domain;
    const { left, width } = this.#strip;
    const x = (time) => clamp((time - from) / (to - from), 0, 1) * width;
    const start = x(this.#range.from);
    this.#eye.style.left = `${left + start}px`;
    this.#eye.style.width = `${Math.max(4, x(this.#range.to) - start)}px`;
  }

  #press(event) {
    if (event.button !== 0 || event.target.closest("button")) return;
    this.#root.setPointerCapture(event.pointerId);
    this.#drag(event);
  }

  #drag(event) {
    if (this.#items.length === 0 || !this.#root.hasPointerCapture(event.pointerId)) return;
    const { left, width } = this.#canvases[0].getBoundingClientRect();
    const share = clamp((event.clientX - left) / width, 0, 1);
    const { from, to } = this.#domain;
    this.#onCentre(from + share * (to - from));
  }
}

// The list of symbols: searched by typing, walked with the arrow keys, quick with tens of thousands of them.

import { count, date, plural } from "../format.js";
import { stored } from "../data/intervals.js";

const ROW_PX = 44;
const SPARE_ROWS = 6;
const PAGE_ROWS = 10;

// Exact matches first, then those that begin so, then those that have it anywhere.
function ranked(symbols, query) {
  if (!query) return symbols;
  const wanted = query.toUpperCase();
  const groups = [[], [], []];
  for (const entry of symbols) {
    const at = entry.upper.indexOf(wanted);
    if (at < 0) continue;
    groups[at > 0 ? 2 : entry.upper.length === wanted.length ? 0 : 1].push(entry);
  }
  return groups.flat();
}

function held({ series }) {
  const other = new Set(series.filter((s) => s.kind !== "bars").map((s) => s.kind));
  return [...stored(series), ...other].join(" · ");
}

function years({ series }) {
  const first = date(Math.min(...series.map((s) => s.first)));
  const last = date(Math.max(...series.map((s) => s.last)));
  const [from, to] = [first, last].map((day) => day.slice(0, -6));
  return from === to ? from : `${from}–${to}`;
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function graded({ grade, stale }) {
  const badge = element("span", "grade", stale ? `${grade}?` : grade);
  badge.dataset.grade = grade;
  badge.title = `Quality ${grade}, from A to F${stale ? "; stale: rows may be gone that it was made of" : ""}`;
  badge.ariaLabel = badge.title;
  badge.role = "img";
  return badge;
}

/** A combobox over a listbox of which only the rows in sight exist. */
export class SymbolList {
  #input;
  #list;
  #count;
  #rows;
  #onPick;
  #all = [];
  #found = [];
  #active = -1;
  #current = null;
  #grades = new Map();

  constructor({ input, list, count, onPick }) {
    this.#input = input;
    this.#list = list;
    this.#count = count;
    this.#onPick = onPick;
    this.#rows = list.firstElementChild;
    input.addEventListener("input", () => this.#search());
    input.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("scroll", () => this.#draw(), { passive: true });
    list.addEventListener("mousedown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#draw()).observe(list);
  }

  /** `[{symbol, series}]`, sorted. */
  set symbols(symbols) {
    this.#all = symbols.map((entry) => ({ ...entry, upper: entry.symbol.toUpperCase() }));
    this.#search(true);
  }

  /** Mark a symbol as the one on show, and list all again. */
  set current(symbol) {
    this.#current = symbol;
    this.#input.value = "";
    this.#search(true);
    this.#activate(this.#found.findIndex((entry) => entry.symbol === symbol));
  }

  /** Grade from A to F by symbol, of those that were inspected. */
  set grades(grades) {
    this.#grades = grades;
    this.#draw();
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /** The symbol that many places after the current one in the list. */
  neighbour(step) {
    const at = this.#found.findIndex((entry) => entry.symbol === this.#current);
    return this.#found[Math.max(0, Math.min(this.#found.length - 1, at + step))]?.symbol;
  }

  #search(keepScroll = false) {
    const query = this.#input.value.trim();
    this.#found = ranked(this.#all, query);
    this.#rows.style.height = `${this.#found.length * ROW_PX}px`;
    this.#count.textContent = query ? `${count(this.#found.length)} of ${count(this.#all.length)}` : plural(this.#all.length, "symbol");
    const current = this.#found.findIndex((entry) => entry.symbol === this.#current);
    if (!keepScroll) this.#list.scrollTop = 0;
    this.#activate(query ? 0 : current, !keepScroll);
  }

  #activate(index, scroll = true) {
    this.#active = Math.min(index, this.#found.length - 1);
    if (scroll && this.#active >= 0) this.#reveal(this.#active);
    this.#draw();
  }

  #reveal(index) {
    const top = index * ROW_PX;
    const { scrollTop, clientHeight } = this.#list;
    if (top < scrollTop) this.#list.scrollTop = top;
    else if (top + ROW_PX > scrollTop + clientHeight) this.#list.scrollTop = top + ROW_PX - clientHeight;
  }

  #draw() {
    const first = Math.max(0, Math.floor(this.#list.scrollTop / ROW_PX) - SPARE_ROWS);
    const fit = Math.ceil(this.#list.clientHeight / ROW_PX) + 2 * SPARE_ROWS;
    const shown = this.#found.slice(first, first + fit);
    this.#rows.replaceChildren(...shown.map((entry, i) => this.#row(entry, first + i)));
    if (document.getElementById(`symbol-${this.#active}`)) this.#input.setAttribute("aria-activedescendant", `symbol-${this.#active}`);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #row(entry, index) {
    const row = element("div", "symbol", "");
    row.id = `symbol-${index}`;
    row.role = "option";
    row.ariaSelected = String(entry.symbol === this.#current);
    row.ariaSetSize = String(this.#found.length);
    row.ariaPosInSet = String(index + 1);
    row.dataset.symbol = entry.symbol;
    row.title = entry.symbol;
    row.classList.toggle("active", index === this.#active);
    row.style.transform = `translateY(${index * ROW_PX}px)`;
    row.append(
      element("span", "symbol-name", entry.symbol),
      element("span", "symbol-years", years(entry)),
      element("span", "symbol-held", held(entry)),
    );
    const grade = this.#grades.get(entry.symbol);
    if (grade) row.append(graded(grade));
    return row;
  }

  #click(event) {
    const row = event.target.closest("[role=option]");
    if (row) this.#onPick(row.dataset.symbol);
  }

  #key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE_ROWS, PageUp: -PAGE_ROWS };
    if (event.key in steps) this.#activate(Math.max(0, this.#active + steps[event.key]));
    else if (event.key === "Enter" && this.#found[this.#active]) this.#onPick(this.#found[this.#active].symbol);
    else if (event.key === "Escape") this.#escape();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #escape() {
    if (!this.#input.value) {
      this.#input.blur();
      return;
    }
    this.#input.value = "";
    this.#search();
  }
}

// The page: makes the parts, joins them, and follows the store.

import * as address from "./address.js";
import { Api, Problem } from "./data/api.js";
import { History } from "./data/bars.js";
import { Instruments } from "./data/instruments.js";
import { Live } from "./live.js";
import { opening } from "./format.js";
import { listen } from "./keyboard.js";
import { Chart } from "./parts/chart.js";
import { Coverage } from "./parts/coverage.js";
import { IntervalChoice } from "./parts/intervals.js";
import { Legend } from "./parts/legend.js";
import { Loads } from "./parts/loads.js";
import { Notice, askKey, showNothing } from "./parts/notice.js";
import { showStore } from "./parts/store.js";
import { SymbolList } from "./parts/symbols.js";
import { View } from "./view.js";

const POLL_MS = 5_000;
const RECORDED_MS = 60_000;
const ADDRESS_MS = 250;
const GAPS_LISTED = 1_000;
const KEPT_OVERLAP = 0.5;
const PAN_SHARE = 0.2;

const byId = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 860px)");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

const api = new Api(askKey);
const chart = new Chart(byId("chart"));
const view = new View(new History(api), chart);
const legend = new Legend(byId("legend"));
const notice = new Notice();
const list = new SymbolList({ input: byId("search"), list: byId("symbols"), count: byId("count"), onPick: pick });
const intervals = new IntervalChoice(byId("intervals"), (mode) => view.symbol && choose(mode));
const coverage = new Coverage({ root: byId("strips"), popover: byId("gaps"), onJump: (range) => view.jump(range), onCentre: centre });

const loads = new Loads(api, () => follow());
const live = new Live({ root: byId("live"), onBar: (bar) => view.update(bar) });

let symbols = new Map();
let instruments = new Instruments([]);
let commit = null;
let loadedAt = 0;
let covering = new AbortController();
let hovered = null;
let addressTimer = null;

// --- the store -------------------------------------------------------------------------------------------------------

async function loadStore() {
  const [found, stats, known, grades] = await Promise.all([api.symbols(), api.stats(), api.instruments(), api.grades()]);
  instruments = new Instruments(known);
  symbols = new Map(found.map((entry) => [entry.symbol, entry]));
  commit = written(stats);
  loadedAt = Date.now();
  list.symbols = found;
  list.grades = grades;
  showStore(byId("facts"), found, stats);
  byId("first-run").hidden = found.length > 0;
}

async function loadCoverage() {
  covering.abort();
  covering = new AbortController();
  const items = await api.coverage(view.symbol, { spans: GAPS_LISTED, signal: covering.signal });
  coverage.show(items, instruments.zoneOf(view.symbol));
  coverage.range = view.range;
}

// What is recorded live is drawn as it comes; all else is fetched anew, and so are, now and then, its symbols and spans.
const written = (stats) => stats.store.commit - stats.recorded;

async function follow() {
  const stats = await api.stats();
  const stale = stats.recorded > 0 && Date.now() - loadedAt > RECORDED_MS;
  if (written(stats) === commit && !stale) return;
  await loadStore();
  if (!symbols.has(view.symbol)) {
    leave();
    return showAddressed();
  }
  view.series = symbols.get(view.symbol).series;
  intervals.series = view.series;
  await Promise.all([view.reload(), loadCoverage()]);
}

// What was on show is there no more: after an undo, a delete, or with another folder behind the same address.
function leave() {
  covering.abort();
  live.leave();
  view.leave();
  legend.name("");
  coverage.show([], "UTC");
  intervals.series = [];
  showNothing(null);
  document.title = "Tapehouse";
  byId("open-symbols").textContent = "Symbols";
  byId("status").textContent = "";
}

// An error is said once, and taken back when the server answers again.
async function followForever() {
  let lost = false;
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    if (document.hidden) continue;
    const problem = await guard(follow, { quiet: lost });
    if (lost && !problem) notice.clear();
    lost = Boolean(problem);
  }
}

// --- what is looked at -----------------------------------------------------------------------------------------------

function pick(symbol) {
  closeDrawer();
  byId("search").blur();
  byId("chart").focus({ preventScroll: true });
  show({ symbol, range: keptRange(symbols.get(symbol).series) });
}

// The same span of another symbol, so that two can be compared, when it has most of it.
function keptRange(series) {
  const { range } = view;
  if (!range) return null;
  const first = Math.min(...series.map((s) => s.first));
  const last = Math.max(...series.map((s) => s.last));
  const shared = Math.min(last, range.to) - Math.max(first, range.from);
  return shared >= (range.to - range.from) * KEPT_OVERLAP ? range : null;
}

async function show({ symbol, mode = view.mode, range }) {
  notice.clear();
  clearTimeout(addressTimer);
  const { series } = symbols.get(symbol);
  list.current = symbol;
  intervals.series = series;
  byId("open-symbols").textContent = symbol;
  const possible = mode === "auto" || intervals.offers(mode) ? mode : "auto";
  const zone = instruments.zoneOf(symbol);
  coverage.sketch(series, zone);
  await Promise.all([view.show({ symbol, series, zone, mode: possible, range }), guard(loadCoverage)]);
}

async function showAddressed() {
  const said = address.read();
  const symbol = symbols.has(said.symbol) ? said.symbol : symbols.keys().next().value;
  if (symbol === undefined) return;
  const range = said.symbol === symbol ? said.range : null;
  await show({ symbol, mode: said.mode ?? "auto", range });
  if (said.symbol && said.symbol !== symbol) notice.tell("No such symbol:", `nothing is stored of ${said.symbol}.`);
  else if (said.unread.length > 0) notice.tell("Not understood:", `${said.unread.join(", ")} of the address.`);
  else if (said.mode && said.mode !== view.mode) notice.tell(`No ${said.mode} bars of ${symbol}.`, "These are others.");
  else if (range && view.narrowed) notice.tell("Too long for this interval.", "This is a part of it.");
}

function choose(mode) {
  notice.clear();
  return view.choose(mode);
}

function centre(time) {
  const half = view.range ? (view.range.to - view.range.from) / 2 : 0;
  if (half > 0) view.jump({ from: time - half, to: time + half });
}

function span() {
  const first = Math.min(...view.series.map((s) => s.first));
  const last = Math.max(...view.series.map((s) => s.last));
  return { from: first, to: last };
}

function jumpToOldest() {
  if (!view.range) return;
  const { from } = span();
  view.jump({ from, to: from + view.range.to - view.range.from });
}

// --- what follows from it --------------------------------------------------------------------------------------------

function describe() {
  const positions = chart.range;
  if (!view.window || !positions) return;
  legend.describe(view.window, positions);
  const { bars, interval } = view.window;
  const index = hovered ?? Math.max(0, Math.min(bars.length - 1, Math.floor(positions.to)));
  legend.show(bars[index], bars[index - 1], { interval, zone: view.zone, places: chart.places });
}

function rememberAddress() {
  clearTimeout(addressTimer);
  if (view.range) address.write(view);
}

function shown({ detail }) {
  showNothing(null);
  intervals.mark(view.mode, view.interval);
  document.title = `${view.symbol} ${view.interval} · Tapehouse`;
  const [from, to] = [view.range.from, view.range.to].map((time) => opening(time, view.interval, view.zone));
  const text = `${view.symbol}, ${view.interval}, ${from} to ${to}`;
  byId("chart").ariaLabel = `Chart of ${text}`;
  byId("status").textContent = text;
  if (detail.clamped) notice.tell("No bars there.", "These are the nearest.");
  live.follow(view.symbol, view.interval);
  moved();
  rememberAddress();
}

function moved() {
  hovered = null;
  describe();
  coverage.range = view.range;
  clearTimeout(addressTimer);
  addressTimer = setTimeout(rememberAddress, ADDRESS_MS);
}

function empty() {
  const { symbol, interval, series } = view;
  legend.name(symbol);
  intervals.mark(view.mode, interval);
  const kinds = [...new Set(series.map((s) => s.kind))].join(" and ");
  if (interval) showNothing(`No ${interval} bars of ${symbol}`, "Choose another interval.");
  else showNothing(`No bars of ${symbol}`, `Only ${kinds} are stored of it, and this page shows bars.`);
  byId("status").textContent = byId("nothing-title").textContent;
}

// What is on the chart stays, unless it is another symbol's.
function failed({ detail }) {
  if (view.window?.symbol !== view.symbol) {
    chart.clear();
    legend.name(view.symbol);
  }
  notice.show(detail, retry);
}

function retry() {
  return guard(view.symbol ? () => show({ symbol: view.symbol, range: view.range }) : start);
}

// Errors that the server (or its absence) explains are shown and returned; any other is a bug, and stays one.
async function guard(task, { quiet = false } = {}) {
  try {
    await task();
  } catch (problem) {
    if (problem.name === "AbortError") return null;
    if (!(problem instanceof Problem)) throw problem;
    if (!quiet) notice.show(problem, retry);
    return problem;
  }
  return null;
}

view.addEventListener("shown", shown);
view.addEventListener("range", moved);
view.addEventListener("grown", describe);
view.addEventListener("empty", empty);
view.addEventListener("failed", failed);
view.addEventListener("busy", ({ detail }) => { byId("busy").hidden = !detail; });
chart.onHover((index) => {
  hovered = index;
  describe();
});

// --- the rest of the page --------------------------------------------------------------------------------------------

function toggleTheme() {
  const now = document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("tapehouse-theme", next);
  retheme();
}

function retheme() {
  chart.retheme();
  coverage.retheme();
}

function toggleLog() {
  chart.logarithmic = !chart.logarithmic;
  byId("log").ariaPressed = String(chart.logarithmic);
}

function openDrawer() {
  document.body.classList.toggle("drawer-open", narrow.matches);
  byId("open-symbols").ariaExpanded = String(narrow.matches);
  byId("veil").hidden = !narrow.matches;
  byId("sidebar").inert = false;
  list.focus();
}

function closeDrawer() {
  document.body.classList.remove("drawer-open");
  byId("open-symbols").ariaExpanded = "false";
  byId("veil").hidden = true;
  byId("sidebar").inert = narrow.matches;
}

async function copyCommand() {
  await navigator.clipboard.writeText(byId("command").textContent);
  byId("copy").textContent = "Copied";
}

function step(by) {
  const symbol = list.neighbour(by);
  if (symbol && symbol !== view.symbol) pick(symbol);
}

const onSymbol = (act) => (...given) => view.symbol && act(...given);

listen({
  search: openDrawer,
  leave: closeDrawer,
  theme: toggleTheme,
  help: () => byId("help-dialog").showModal(),
  loads: () => loads.open(),
  log: toggleLog,
  auto: onSymbol(() => choose("auto")),
  interval: onSymbol((name) => intervals.offers(name) && choose(name)),
  fit: onSymbol(() => view.jump(span())),
  newest: onSymbol(() => view.jumpToNewest()),
  oldest: onSymbol(jumpToOldest),
  next: onSymbol(() => step(1)),
  previous: onSymbol(() => step(-1)),
  back: () => chart.pan(-PAN_SHARE),
  forth: () => chart.pan(PAN_SHARE),
  closer: () => chart.zoom(1),
  wider: () => chart.zoom(-1),
});
byId("load-here").addEventListener("click", () => loads.open());
byId("copy").addEventListener("click", copyCommand);
byId("veil").addEventListener("click", closeDrawer);
prefersDark.addEventListener("change", retheme);
narrow.addEventListener("change", closeDrawer);
addEventListener("popstate", () => symbols.size > 0 && guard(showAddressed));

async function start() {
  await loadStore();
  await showAddressed();
}

closeDrawer();
await guard(start);
await followForever();

// The view as an address: #symbol=AAPL&interval=1d&from=2012-01-03&to=2013-03-01T00:00Z

import { address, parseAddress } from "./format.js";
import { INTERVALS } from "./data/intervals.js";

/** `{symbol, mode, range}` of the address bar; null for what it does not say, or not sensibly. */
export function read() {
  const said = new URLSearchParams(location.hash.slice(1));
  const [from, to] = [said.get("from"), said.get("to")].map((text) => (text ? parseAddress(text) : null));
  const interval = said.get("interval");
  return {
    symbol: said.get("symbol"),
    mode: interval === "auto" || INTERVALS.includes(interval) ? interval : null,
    range: from !== null && to !== null && from < to ? { from, to } : null,
  };
}

/** Put the view into the address bar; another symbol is a step that Back undoes. */
export function write({ symbol, mode, range }) {
  const said = new URLSearchParams({ symbol, interval: mode });
  if (range) said.set("from", address(range.from)), said.set("to", address(range.to));
  const hash = `#${said.toString().replaceAll("%3A", ":").replaceAll("%2F", "/")}`;
  if (hash === location.hash) return;
  const another = read().symbol !== null && read().symbol !== symbol;
  history[another ? "pushState" : "replaceState"](null, "", hash);
}

// The view as an address: #symbol=AAPL&interval=1d&from=2012-01-03&to=2013-03-01T00:00Z

import { address, parseAddress } from "./format.js";
import { INTERVALS } from "./data/intervals.js";

/** `{symbol, mode, range}` of the address bar; null for what it does not say, or not sensibly: that is in `unread`. */
export function read() {
  const said = new URLSearchParams(location.hash.slice(1));
  const [from, to] = [said.get("from"), said.get("to")].map((text) => (text ? parseAddress(text) : null));
  const interval = said.get("interval");
  const mode = interval === "auto" || INTERVALS.includes(interval) ? interval : null;
  const range = from !== null && to !== null && from < to ? { from, to } : null;
  const unread = [mode ? [] : ["interval"], range ? [] : ["from", "to"]].flat().filter((name) => said.has(name));
  return { symbol: said.get("symbol"), mode, range, unread: unread.map((name) => `${name}=${said.get(name)}`) };
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

// What is on the chart as it moves: the bars of its symbol and interval, and how the connection does.

import { storedKey } from "./data/api.js";
import { Stream } from "./data/stream.js";

const INTERVAL_MS = 250;
const SLOW_MS = 2_000;
const WORDS = { connecting: "Connecting", live: "Live", lost: "Not connected" };

/** Follows one symbol and interval. `onBar` is called with each bar as it is now; `root` shows the state. */
export class Live {
  #stream;
  #root;
  #onBar;
  #stop = null;
  #followed = "";
  #state = "connecting";
  #lagMs = 0;

  constructor({ root, onBar }) {
    this.#root = root;
    this.#onBar = onBar;
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.#stream = new Stream(url.href, { key: storedKey });
    this.#stream.addEventListener("state", ({ detail }) => this.#show({ state: detail }));
    this.#stream.addEventListener("lag", ({ detail }) => this.#show({ lagMs: detail }));
    this.#stream.addEventListener("problem", ({ detail }) => this.#show({ state: "lost", says: detail.message }));
  }

  /** Follow the bars of a symbol; the same again changes nothing. */
  follow(symbol, interval) {
    const wanted = `${symbol} ${interval}`;
    if (wanted === this.#followed) return;
    this.leave();
    this.#followed = wanted;
    const topic = { channels: [`bars.${interval}`], symbols: [symbol], delivery: "conflate", interval_ms: INTERVAL_MS };
    this.#stop = this.#stream.subscribe(topic, (rows) => rows.forEach((row) => this.#onBar(barOf(row))));
  }

  /** Follow nothing. */
  leave() {
    this.#stop?.();
    this.#stop = null;
    this.#followed = "";
  }

  #show({ state = this.#state, lagMs = this.#lagMs, says = "" }) {
    this.#state = state;
    this.#lagMs = lagMs;
    const slow = state === "live" && lagMs > SLOW_MS;
    this.#root.hidden = false;
    this.#root.dataset.state = slow ? "slow" : state;
    this.#root.textContent = slow ? `${Math.round(lagMs / 1_000)} s behind` : WORDS[state];
    this.#root.title = says || (state === "live" ? `Live; the server is ${Math.round(lagMs)} ms behind its log` : WORDS[state]);
  }
}

function barOf({ timestamp, open, high, low, close, volume, final }) {
  return { time: Date.parse(timestamp) / 1_000, open, high, low, close, volume, madeFrom: "stored", complete: final !== false };
}

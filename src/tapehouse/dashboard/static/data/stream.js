// Live records over a WebSocket: subscriptions that survive a lost connection. It stands by itself, for other pages too:
//
//   const stream = new Stream("ws://127.0.0.1:8720/v1/stream");
//   const stop = stream.subscribe({ channels: ["trades"], symbols: ["AAPL"] }, (rows, message) => { ... });

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
const SILENT_MS = 45_000;

/**
 * A connection that is made again when it is lost; each subscription goes on at its position.
 *
 * Emits: `state` (detail: `connecting`, `live` or `lost`), `gap` (what the server said is missing), `problem` (an error
 * that the server answered with) and `lag` (detail: milliseconds that the server is behind its log).
 */
export class Stream extends EventTarget {
  #url;
  #key;
  #socket = null;
  #subscriptions = new Map();
  #next = 1;
  #retryMs = FIRST_RETRY_MS;
  #timer = null;
  #watch = null;
  #closed = false;

  /** `key()` gives the API key, or null; the connection is made with the first subscription. */
  constructor(url, { key = () => null } = {}) {
    super();
    this.#url = url;
    this.#key = key;
  }

  /** Follow topics; `onRows(rows, message)` is called with each message of data. Returns what ends it. */
  subscribe(wanted, onRows) {
    const id = String(this.#next++);
    this.#subscriptions.set(id, { wanted, onRows, position: null });
    if (this.#socket?.readyState === WebSocket.OPEN) this.#ask(id);
    else if (!this.#socket) this.#connect();
    return () => {
      if (!this.#subscriptions.delete(id)) return;
      if (this.#socket?.readyState === WebSocket.OPEN) this.#say({ op: "unsubscribe", id });
    };
  }

  /** End the connection for good. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    this.#socket?.close();
  }

  #connect() {
    this.#emit("state", "connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      const key = this.#key();
      if (key) this.#say({ op: "auth", key });
      for (const id of this.#subscriptions.keys()) this.#ask(id);
    });
    socket.addEventListener("message", ({ data }) => this.#take(JSON.parse(data)));
    socket.addEventListener("close", () => this.#lost());
  }

  // From where it was, if it was anywhere: then nothing is missing.
  #ask(id) {
    const { wanted, position } = this.#subscriptions.get(id);
    this.#say({ op: "subscribe", id, ...wanted, ...(position ? { from: position } : {}) });
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #take(message) {
    this.#heard();
    const subscription = this.#subscriptions.get(message.id);
    if (message.position && subscription) subscription.position = message.position;
    if (message.type === "data") subscription?.onRows(message.rows, message);
    else if (message.type === "welcome") this.#retryMs = FIRST_RETRY_MS;
    else if (message.type === "caught_up") this.#emit("state", "live");
    else if (message.type === "gap") this.#emit("gap", message);
    else if (message.type === "error") this.#refused(message, subscription);
    else if (message.type === "heartbeat") this.#emit("lag", message.lag_ms);
    else if (message.type === "closing") this.#retryMs = message.retry_after_s * 1_000;
  }

  // A position that the log does not know any more is given up; what is stored can be fetched.
  #refused(message, subscription) {
    if (message.code === "invalid_token" && subscription?.position) {
      subscription.position = null;
      this.#ask(message.id);
    } else this.#emit("problem", message);
  }

  // A connection can be dead without anybody saying so.
  #heard() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#socket?.close(), SILENT_MS);
  }

  #lost() {
    this.#socket = null;
    clearTimeout(this.#watch);
    if (this.#closed) return;
    this.#emit("state", "lost");
    this.#timer = setTimeout(() => this.#connect(), this.#retryMs * (0.75 + Math.random() / 2));
    this.#retryMs = Math.min(LONGEST_RETRY_MS, this.#retryMs * 2);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

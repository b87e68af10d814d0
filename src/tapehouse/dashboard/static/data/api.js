// Requests to the server: the key, the errors, and rows out of columns.

const KEY_ITEM = "tapehouse-key";

/** What the server said went wrong: a problem document (RFC 9457), or that it could not be reached. */
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", title, detail }) {
    super(detail);
    this.name = "Problem";
    this.status = status;
    this.code = code;
    this.title = title;
    this.detail = detail;
  }
}

async function problemOf(response) {
  const fallback = { title: response.statusText || "Error", detail: `The server answered with status ${response.status}.` };
  const isProblem = (response.headers.get("content-type") ?? "").includes("json");
  const said = isProblem ? await response.json() : {};
  return new Problem({ ...fallback, ...said, status: response.status });
}

function unreachable(cause) {
  if (cause.name === "AbortError") return cause;
  return new Problem({ title: "No answer", detail: "The server does not answer. Is `tapehouse serve` still running?" });
}

const iso = (time) => new Date(time * 1000).toISOString();

function rowsOf({ columns }) {
  const { timestamp, open, high, low, close, volume, made_from: madeFrom, complete } = columns;
  return timestamp.map((time, i) => ({
    time,
    open: open[i],
    high: high[i],
    low: low[i],
    close: close[i],
    volume: volume[i],
    madeFrom: madeFrom?.[i] ?? "stored",
    complete: complete?.[i] ?? true,
  }));
}

/** Times are UTC seconds. Every method rejects with a `Problem`, or an `AbortError` when its signal was aborted. */
export class Api {
  #askKey;
  #asking = null;

  /** `askKey(problem)` is asked for a key when one is needed, and promises it. */
  constructor(askKey) {
    this.#askKey = askKey;
  }

  /** One page of bars, ascending: `limit` bars from `start` on, or the last `limit` before `end`. */
  async bars(symbol, interval, { start, end, limit, signal, priority }) {
    const bound = start === undefined ? { order: "desc" } : { start: iso(start), order: "asc" };
    if (end !== undefined) bound.end = iso(end);
    const answer = await this.#get("v1/bars", { symbols: symbol, interval, limit, times: "s", ...bound }, { signal, priority });
    const rows = rowsOf(answer);
    return { bars: start === undefined ? rows.reverse() : rows, exhausted: answer.next_page == null };
  }

  /** `[{symbol, series: [{kind, interval, first, last, rows}]}]`, sorted. */
  async symbols() {
    return (await this.#get("v1/symbols", { times: "s" })).symbols;
  }

  /** The series of a symbol with their missing spans, newest first. */
  async coverage(symbol, { spans, signal }) {
    return (await this.#get("v1/coverage", { symbols: symbol, spans, times: "s" }, { signal })).coverage;
  }

  /** `[{pattern, timezone, ...}]` */
  async instruments() {
    return (await this.#get("v1/instruments", {})).instruments;
  }

  async stats() {
    return this.#get("v1/stats", {});
  }

  async #get(path, parameters, options = {}) {
    const url = `${path}?${new URLSearchParams(parameters)}`;
    const response = await this.#send(url, options);
    if (response.status === 401) return this.#getWithKey(url, options, response);
    if (!response.ok) throw await problemOf(response);
    return response.json();
  }

  async #send(url, options) {
    const key = sessionStorage.getItem(KEY_ITEM);
    const headers = key ? { Accept: "application/json", Authorization: `Bearer ${key}` } : { Accept: "application/json" };
    try {
      return await fetch(url, { ...options, headers });
    } catch (cause) {
      throw unreachable(cause);
    }
  }

  // All requests that meet a 401 at the same time wait for one answer, then go again.
  async #getWithKey(url, options, refused) {
    this.#asking ??= problemOf(refused).then(this.#askKey).finally(() => { this.#asking = null; });
    sessionStorage.setItem(KEY_ITEM, await this.#asking);
    const response = await this.#send(url, options);
    if (response.status === 401) return this.#getWithKey(url, options, response);
    if (!response.ok) throw await problemOf(response);
    return response.json();
  }
}

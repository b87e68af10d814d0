// Requests to the server: the key, the errors, and rows out of columns.

const KEY_ITEM = "tapehouse-key";

/** The key that this page was given, or null. */
export const storedKey = () => sessionStorage.getItem(KEY_ITEM);

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

const dataOf = (event) => event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5));

function worstGrades(quality) {
  const worst = new Map();
  for (const { symbol, grade, stale } of quality) {
    if (!grade) continue;
    const known = worst.get(symbol) ?? { grade, stale };
    worst.set(symbol, { grade: known.grade > grade ? known.grade : grade, stale: known.stale || stale });
  }
  return worst;
}

function posted(url, body, key, onSent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "json";
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.upload.addEventListener("progress", ({ loaded, total }) => onSent(loaded / total));
    request.addEventListener("error", () => reject(unreachable(new Error("cut off"))));
    request.addEventListener("load", () => {
      const { status, statusText, response } = request;
      if (status === 200) resolve(response);
      else reject(new Problem({ title: statusText, detail: `The server answered with status ${status}.`, ...response, status }));
    });
    request.send(body);
  });
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

  /** Grade by symbol: the worst of its series. Empty for a store that keeps none. */
  async grades() {
    try {
      const { quality } = await this.#get("v1/quality", { findings: "false" });
      return worstGrades(quality);
    } catch (problem) {
      if (problem.code === "not_supported") return new Map();
      throw problem;
    }
  }

  /** What waits, runs, and ran, newest first. */
  async jobs(limit) {
    return (await this.#get("v1/jobs", { limit, times: "s" })).jobs;
  }

  /** Ask a job to end after its current step. */
  async cancel(id) {
    return this.#get(`v1/jobs/${encodeURIComponent(id)}/cancel`, { times: "s" }, { method: "POST" });
  }

  /** Call back with the job as it is now and after every change, until it is over. */
  async watch(id, onJob, { signal }) {
    const response = await this.#fetch(`v1/jobs/${encodeURIComponent(id)}/events?times=s`, { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        events.flatMap(dataOf).forEach((data) => onJob(JSON.parse(data)));
      }
    } catch (cause) {
      throw unreachable(cause);
    }
  }

  /** What loads, uploads and feeds brought, newest first. */
  async batches(limit) {
    return (await this.#get("v1/batches", { limit, times: "s" })).batches;
  }

  /** Take back what a batch did. */
  async undo(name) {
    return this.#get(`v1/batches/${encodeURIComponent(name)}/undo`, { times: "s" }, { method: "POST" });
  }

  /** Send files and promise the job that loads them; `onSent` is told the share that is sent. */
  async upload(files, options, onSent) {
    const form = new FormData();
    form.append("options", JSON.stringify(options));
    for (const file of files) form.append("file", file, file.webkitRelativePath || file.name);
    // The first of our requests may have to ask for a key; a body this large is sent once, and by the only one that
    // tells how far it is.
    await this.jobs(1);
    return posted("v1/jobs/load?times=s", form, storedKey(), onSent);
  }

  async #get(path, parameters, options = {}) {
    return (await this.#fetch(`${path}?${new URLSearchParams(parameters)}`, options)).json();
  }

  async #fetch(url, options) {
    const response = await this.#send(url, options);
    if (response.status === 401) return this.#fetchWithKey(url, options, response);
    if (!response.ok) throw await problemOf(response);
    return response;
  }

  async #send(url, options) {
    const key = storedKey();
    const headers = key ? { Accept: "application/json", Authorization: `Bearer ${key}` } : { Accept: "application/json" };
    try {
      return await fetch(url, { ...options, headers });
    } catch (cause) {
      throw unreachable(cause);
    }
  }

  // All requests that meet a 401 at the same time wait for one answer, then go again.
  async #fetchWithKey(url, options, refused) {
    this.#asking ??= problemOf(refused).then(this.#askKey).finally(() => { this.#asking = null; });
    sessionStorage.setItem(KEY_ITEM, await this.#asking);
    const response = await this.#send(url, options);
    if (response.status === 401) return this.#fetchWithKey(url, options, response);
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

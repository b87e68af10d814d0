// Loads: files are sent, jobs watched and cancelled, batches undone.

import { bytes, count, moment, plural } from "../format.js";
import { Problem } from "../data/api.js";

const JOBS_SHOWN = 20;
const BATCHES_SHOWN = 50;
const POLL_MS = 2_000;
const OVER = new Set(["done", "failed", "cancelled", "interrupted"]);

const byId = (id) => document.getElementById(id);

function element(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function button(text, label, act) {
  const node = element("button", "", text);
  node.type = "button";
  node.ariaLabel = label;
  node.addEventListener("click", act);
  return node;
}

function left(seconds) {
  if (seconds === null) return "";
  const whole = Math.ceil(seconds);
  return `, ${whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`} left`;
}

function countsOf({ totals }) {
  const names = ["inserted", "replaced", "unchanged", "rejected", "quarantined", "unwritten"];
  return names.filter((name) => totals[name]).map((name) => `${count(totals[name])} ${name}`).join(", ") || "nothing to do";
}

function saidOf({ state, progress, report, files: all, refused, error, resume }) {
  if (error) return resume ? `${error.message}. To go on: ${resume}` : error.message;
  const what = report?.totals ? countsOf(report) : progress && `${plural(progress.rows, "row")} read`;
  const loaded = refused && `${count(all - refused)} of ${plural(all, "file")} loaded`;
  if (OVER.has(state)) return [loaded, what, resume && `To go on: ${resume}`].filter(Boolean).join(". ");
  if (!progress) return "waits for its turn";
  const { file, file_number: number, files, rows, rows_per_s: pace, quarantined, eta_s: eta } = progress;
  const bad = quarantined ? `, ${count(quarantined)} bad` : "";
  const which = files > 1 ? ` (${count(number)} of ${count(files)})` : "";
  return `${file}${which}: ${plural(rows, "row")}, ${count(pace)} rows/s${bad}${left(eta)}`;
}

function problemsOf({ refused = 0, problems = [] }) {
  const more = refused - problems.length;
  return [...problems.map(({ message }) => message), ...(more > 0 ? [`and ${plural(more, "more file")}`] : [])];
}

/** One job: its name, its state, how far it is, and a way to end it. It is changed in place, so that focus stays. */
class JobRow {
  node = element("li", "job");
  #state = element("span", "badge job-state");
  #bar = document.createElement("progress");
  #said = element("p", "job-said");
  #problems = element("ul", "job-problems");
  #cancel;

  constructor(job, onCancel) {
    const name = job.what.length > 1 ? `${job.what[0]} and ${count(job.what.length - 1)} more` : (job.what[0] ?? job.batch);
    this.#cancel = button("Cancel", `Cancel the load of ${name}`, () => onCancel(job.id));
    const head = element("div", "job-head");
    head.append(element("strong", "job-name", name), this.#state, this.#cancel);
    this.#bar.ariaLabel = `Progress of ${name}`;
    this.node.append(head, this.#bar, this.#said, this.#problems);
    this.node.dataset.job = job.id;
  }

  show(job) {
    const over = OVER.has(job.state);
    this.node.dataset.state = job.state;
    this.#state.textContent = job.state;
    this.#said.textContent = saidOf(job);
    this.node.classList.toggle("partly", job.refused > 0);
    this.#problems.replaceChildren(...problemsOf(job).map((said) => element("li", "job-problem", said)));
    this.#cancel.hidden = over;
    this.#bar.hidden = over;
    if (job.progress) {
      this.#bar.max = Math.max(1, job.progress.bytes_total);
      this.#bar.value = job.progress.bytes_done;
    }
  }
}

/** The dialog. `onChange` is called when rows have changed. */
export class Loads {
  #api;
  #onChange;
  #rows = new Map();
  #watched = new Map();
  #polling = null;

  constructor(api, onChange) {
    this.#api = api;
    this.#onChange = onChange;
    byId("load-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#guard(() => this.#load());
    });
    byId("load-files").addEventListener("change", () => this.#say(this.#chosen()));
    byId("loads-close").addEventListener("click", () => byId("loads-dialog").close());
    byId("loads-dialog").addEventListener("close", () => this.#leave());
  }

  async open() {
    byId("loads-dialog").showModal();
    this.#say("");
    await this.#guard(() => this.#refresh());
    clearInterval(this.#polling);
    this.#polling = setInterval(() => this.#guard(() => this.#list()), POLL_MS);
  }

  #leave() {
    clearInterval(this.#polling);
    for (const abort of this.#watched.values()) abort.abort();
    this.#watched.clear();
  }

  #chosen() {
    const { files } = byId("load-files");
    return files.length ? `${plural(files.length, "file")}, ${bytes([...files].reduce((sum, file) => sum + file.size, 0))}` : "";
  }

  async #load() {
    const input = byId("load-files");
    if (!input.files.length) return this.#say("Choose files first.");
    const said = { interval: byId("load-interval").value, timezone: byId("load-zone").value.trim() };
    const options = Object.fromEntries(Object.entries(said).filter(([, value]) => value));
    byId("load-send").disabled = true;
    try {
      const job = await this.#api.upload(input.files, options, (share) => this.#say(`Sending: ${Math.floor(share * 100)} %`));
      this.#say("");
      byId("load-form").reset();
      this.#show(job);
    } finally {
      byId("load-send").disabled = false;
    }
    return null;
  }

  async #refresh() {
    await Promise.all([this.#list(), this.#listBatches()]);
  }

  async #list() {
    const jobs = await this.#api.jobs(JOBS_SHOWN);
    for (const job of jobs.reverse()) if (!this.#rows.has(job.id) || !OVER.has(job.state)) this.#show(job);
    byId("no-jobs").hidden = this.#rows.size > 0;
  }

  #show(job) {
    if (!this.#rows.has(job.id)) {
      const row = new JobRow(job, (id) => this.#guard(async () => this.#show(await this.#api.cancel(id))));
      this.#rows.set(job.id, row);
      byId("jobs").prepend(row.node);
      byId("no-jobs").hidden = true;
    }
    this.#rows.get(job.id).show(job);
    if (!OVER.has(job.state) && !this.#watched.has(job.id)) this.#watch(job.id);
  }

  #watch(id) {
    const abort = new AbortController();
    this.#watched.set(id, abort);
    const follow = () => this.#api.watch(id, (job) => this.#rows.get(id).show(job), abort);
    this.#guard(follow).finally(() => {
      this.#watched.delete(id);
      if (!abort.signal.aborted) this.#guard(async () => { await this.#listBatches(); await this.#onChange(); });
    });
  }

  async #listBatches() {
    const batches = await this.#api.batches(BATCHES_SHOWN);
    byId("no-batches").hidden = batches.length > 0;
    const focused = byId("batches").contains(document.activeElement);
    byId("batches").replaceChildren(...batches.map((batch) => this.#batch(batch)));
    if (focused) byId("loads-close").focus();
  }

  #batch(batch) {
    const node = element("li", "batch");
    const names = ["inserted", "replaced", "deleted", "rejected"];
    const counts = names.filter((name) => batch[name]).map((name) => `${count(batch[name])} ${name}`).join(", ");
    const what = element("div", "batch-what");
    what.append(element("strong", "batch-name", batch.name), element("span", "batch-said", `${moment(batch.ended)} · ${counts || "no rows"}`));
    node.append(what);
    if (batch.undone_by) node.append(element("span", "badge", "undone"));
    else node.append(button("Undo", `Undo ${batch.name}`, () => this.#confirm(node, batch)));
    return node;
  }

  // Asked in place: what it does stands beside the button that does it.
  #confirm(node, batch) {
    const yes = button("Take it back", `Take back ${batch.name}`, () => this.#guard(() => this.#undo(batch)));
    yes.className = "main";
    const no = button("Keep", `Keep ${batch.name}`, () => this.#guard(() => this.#listBatches()));
    node.lastChild.replaceWith(yes, no);
    no.focus();
  }

  async #undo({ name }) {
    const { removed, restored, left: stayed } = await this.#api.undo(name);
    const rest = stayed ? `; ${count(stayed)} were changed since, and stay` : "";
    this.#say(`${name}: ${plural(removed, "row")} removed, ${count(restored)} brought back${rest}.`);
    await this.#listBatches();
    await this.#onChange();
  }

  #say(text, wrong = false) {
    byId("loads-said").textContent = text;
    byId("loads-said").classList.toggle("wrong", wrong);
  }

  async #guard(task) {
    try {
      await task();
    } catch (problem) {
      if (problem.name === "AbortError") return;
      if (!(problem instanceof Problem)) throw problem;
      this.#say(problem.detail, true);
    }
  }
}

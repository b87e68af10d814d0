// What the page says when something went wrong, is not there, or is needed.

const byId = (id) => document.getElementById(id);

/** The bar over the chart that names an error plainly and offers to try again. */
export class Notice {
  #retry = null;

  constructor() {
    byId("notice-close").addEventListener("click", () => this.clear());
    byId("notice-retry").addEventListener("click", () => {
      const retry = this.#retry;
      this.clear();
      retry();
    });
  }

  /** Say what went wrong; `retry` is what trying again does, if that can help. */
  show({ title, detail }, retry = null) {
    this.#say(title, detail, retry);
    byId("notice").classList.remove("plain");
  }

  /** Say something that is no error. */
  tell(title, detail) {
    this.#say(title, detail, null);
    byId("notice").classList.add("plain");
  }

  #say(title, detail, retry) {
    this.#retry = retry;
    byId("notice-title").textContent = title;
    byId("notice-detail").textContent = detail;
    byId("notice-retry").hidden = !retry;
    byId("notice").hidden = false;
  }

  clear() {
    byId("notice").hidden = true;
  }
}

/** What stands in place of the chart when there is nothing to draw; null takes it away. */
export function showNothing(title, detail = "") {
  byId("nothing").hidden = title === null;
  byId("nothing-title").textContent = title ?? "";
  byId("nothing-detail").textContent = detail;
}

/** Ask for the key that the problem says is needed; promises what was typed. */
export function askKey(problem) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-detail").textContent = problem.detail;
  input.value = "";
  dialog.addEventListener("cancel", (event) => event.preventDefault(), { once: true });
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input.value.trim()), { once: true });
  });
}

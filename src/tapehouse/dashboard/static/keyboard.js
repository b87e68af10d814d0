// What can be done by key and by button: both lead to the same actions.

import { DIGIT_INTERVALS } from "./data/intervals.js";

const KEYS = {
  "/": "search",
  Escape: "leave",
  0: "auto",
  f: "fit",
  l: "log",
  t: "theme",
  "?": "help",
  u: "loads",
  j: "next",
  k: "previous",
  ArrowLeft: "back",
  ArrowRight: "forth",
  ArrowUp: "closer",
  ArrowDown: "wider",
  "+": "closer",
  "=": "closer",
  "-": "wider",
  Home: "oldest",
  End: "newest",
};

const BUTTONS = { fit: "fit", newest: "newest", log: "log", theme: "theme", help: "help", loads: "loads", "open-symbols": "search" };

function press(event, actions) {
  const elsewhere = event.target.closest("input, dialog, [popover]");
  if (elsewhere || event.ctrlKey || event.metaKey || event.altKey) return;
  const interval = DIGIT_INTERVALS[Number(event.key) - 1];
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!interval && !name) return;
  event.preventDefault();
  if (interval) actions.interval(interval);
  else actions[name]();
}

/** Call the actions, a function by name; `interval` gets the one that its digit stands for. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => press(event, actions));
  for (const [id, name] of Object.entries(BUTTONS)) {
    document.getElementById(id).addEventListener("click", () => actions[name]());
  }
}

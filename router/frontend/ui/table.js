/** The table of models: what each has taken since the routers started, and how long it took. */

import { el, keep, say } from "./dom.js";
import { count, ms, NONE, percent } from "./words.js";

const pair = (first, second) => (first || second ? `${ms(first)} / ${ms(second)}` : NONE);

const COLUMNS = [
  ["requests", "Requests that are over, of every outcome", (m) => count(m.requests)],
  ["now", "Requests that run / wait for a slot", (m) => `${count(m.running)} / ${count(m.queued)}`],
  ["prompt tokens", "Tokens of prompts whose prefill ended", (m) => count(m.promptTokens)],
  ["cached", "Part of the prompt tokens that came from a prefix cache", (m) => percent(m.cachedTokens, m.promptTokens)],
  ["cross-model cached", "Part of the prompt tokens that was cached because another model had brought it", (m) => percent(m.crossTokens, m.promptTokens)],
  ["output tokens", "Tokens that went to clients", (m) => count(m.outputTokens)],
  ["TTFT p50 / p95", "Time to first token, at the router", (m) => pair(m.ttft_p50_ms, m.ttft_p95_ms)],
  ["TPOT p50 / p95", "Time per output token, at the router", (m) => pair(m.tpot_p50_ms, m.tpot_p95_ms)],
  ["refused", "Requests beyond a limit (429)", (m) => count(m.refused)],
  ["failed", "Requests that failed, or found a pool empty (500, 503)", (m) => count(m.failed)],
];

export class ModelTable {
  #body = el("tbody");

  constructor(table, hue) {
    this.hue = hue;
    const heads = COLUMNS.map(([name, title]) => el("th", { scope: "col", title }, name));
    table.append(el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "model"), ...heads)), this.#body);
  }

  /** Show what `Figures.add` gave, in the spec's order. */
  show({ models }) {
    keep(this.#body, models, (model) => model.name, (model) => this.#row(model));
  }

  #row({ name }) {
    const dot = el("span", { class: `dot hue${this.hue(name)}`, "aria-hidden": "true" });
    const cells = COLUMNS.map(() => el("td"));
    const root = el("tr", {}, el("th", { scope: "row" }, dot, name), ...cells);
    const update = (model) => {
      COLUMNS.forEach(([, , read], index) => say(cells[index], read(model)));
      cells.at(-2).classList.toggle("bad", model.refused > 0);
      cells.at(-1).classList.toggle("bad", model.failed > 0);
      root.classList.toggle("broken", model.problem !== null);
      root.title = model.problem ?? "";
    };
    return { root, update };
  }
}

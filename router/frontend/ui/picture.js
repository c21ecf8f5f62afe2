/** The topology as boxes: models, prefill pools, decode pools. Its arrows are in `arrows.js`. */

import { Arrows } from "./arrows.js";
import { el, keep, say } from "./dom.js";
import { count, many, ms, percent, rate, span } from "./words.js";

const MAX_BARS = 48;
export const HUES = 8;

export class Picture {
  #columns = {};
  #arrows;
  #views = new Map();
  #hues = new Map();

  /** `onChoose(model)` is told when somebody chooses a model in the picture. */
  constructor(root, onChoose) {
    this.onChoose = onChoose;
    this.#arrows = new Arrows(root);
    for (const [role, title, hint] of [
      ["model", "models", "what a client names"],
      ["prefill", "prefill pools", "prompt to KV cache"],
      ["decode", "decode pools", "KV cache to tokens"],
    ]) {
      const list = el("ol", { class: "column", "aria-label": title });
      root.append(el("div", { class: "lane" }, el("h3", {}, title), el("p", { class: "hint" }, hint), list));
      this.#columns[role] = list;
    }
    new ResizeObserver(() => this.#arrows.draw()).observe(root);
    for (const kind of ["pointerover", "focusin"]) root.addEventListener(kind, (event) => this.#point(event.target));
    for (const kind of ["pointerleave", "focusout"]) root.addEventListener(kind, () => this.#arrows.point(null));
  }

  /** Show what `Figures.add` gave. */
  show(figures) {
    const { models, prefill, decode } = order(figures);
    for (const { name } of figures.models) this.hue(name);
    const boxes = new Map();
    const model = keep(this.#columns.model, models, (each) => each.name, (each) => this.#model(each));
    for (const [name, view] of model) boxes.set(`model.${name}`, view.root);
    for (const [role, pools] of Object.entries({ prefill, decode })) {
      const views = keep(this.#columns[role], pools, (each) => each.key, poolBox);
      for (const [key, view] of views) boxes.set(key, view.root);
      this.#views = new Map([...this.#views, ...views]);
    }
    this.#arrows.show(boxes, arrowsOf(models, (name) => this.hue(name)));
  }

  /** A model's colour, the same for as long as the page is open. */
  hue(name) {
    if (!this.#hues.has(name)) this.#hues.set(name, this.#hues.size % HUES);
    return this.#hues.get(name);
  }

  /** Mark the replicas of these names as those that answered. */
  mark(names) {
    for (const view of this.#views.values()) view.mark(names);
  }

  #model(made) {
    const name = el("span", { class: "name" }, made.name);
    const load = el("span", { class: "load" });
    const button = el("button", { type: "button", class: `hue${this.hue(made.name)}` }, name, load);
    button.addEventListener("click", () => this.onChoose(made.name));
    const root = el("li", { class: "model", "data-model": made.name }, button);
    const update = (model) => {
      const inside = [model.running && `${count(model.running)} running`, model.queued && `${count(model.queued)} queued`];
      const loads = [rate(model.admitted_per_s, "req/s"), rate(model.output_tokens_per_s, "tok/s")];
      load.replaceChildren(...loads.filter(Boolean).map((text) => el("span", {}, text)));
      root.classList.toggle("broken", model.problem !== null);
      button.title = [model.name, model.problem, ...inside].filter(Boolean).join(" · ");
    };
    return { root, update };
  }

  #point(target) {
    const box = target.closest?.("[data-model], [data-pool]");
    this.#arrows.point(box ? (box.dataset.model ? { model: box.dataset.model } : { pool: box.dataset.pool }) : null);
  }
}

/** Models beside those that share their pools, so that few arrows cross; the spec's order otherwise. */
export function order({ models, pools }) {
  const prefill = pools.filter((pool) => pool.role === "prefill");
  const rank = (sorted, key) => sorted.findIndex((pool) => pool.key === key);
  const byPrefill = models.toSorted((a, b) => rank(prefill, a.prefill) - rank(prefill, b.prefill));
  // A decode pool stands where its models stand on average; one without models stays at the end.
  const middle = (pool) => {
    const places = byPrefill.flatMap((model, place) => (model.decode === pool.key ? [place] : []));
    return places.length ? places.reduce((a, b) => a + b) / places.length : models.length;
  };
  const decode = pools.filter((pool) => pool.role === "decode").sort((a, b) => middle(a) - middle(b));
  const sorted = byPrefill.sort(
    (a, b) =>
      rank(prefill, a.prefill) - rank(prefill, b.prefill) || rank(decode, a.decode) - rank(decode, b.decode),
  );
  return { models: sorted, prefill, decode };
}

/** Two arrows per model: requests that come, and tokens that go out. */
function arrowsOf(models, hue) {
  return models.flatMap((model) => {
    const same = { model: model.name, hue: hue(model.name), broken: model.problem !== null };
    const busy = model.running + model.queued > 0;
    return [
      { ...same, busy, from: `model.${model.name}`, to: model.prefill, perS: model.admitted_per_s, unit: "req/s" },
      { ...same, busy, from: model.prefill, to: model.decode, perS: model.output_tokens_per_s, unit: "tok/s" },
    ].filter(({ from, to }) => from && to);
  });
}

function poolBox(made) {
  const shared = el("p", { class: "shared" });
  const bars = el("ol", { class: "bars", "aria-label": "replicas" });
  const more = el("span", { class: "hint" });
  const problem = el("p", { class: "problem" });
  const facts = el("ul", { class: "facts" });
  const kv = el("span", { class: "fill" });
  const kvBar = el("div", { class: "kv", "aria-hidden": "true" }, kv);
  const replicas = el("p", { class: "replicas" });
  const root = el(
    "li",
    { class: "pool", "data-pool": made.key },
    el("h4", {}, el("span", { class: "role" }, `${made.role}.`), made.name),
    shared,
    problem,
    el("div", { class: "row" }, bars, more, replicas),
    kvBar,
    facts,
  );
  let marked = new Set();
  let views = new Map();
  const mark = (names) => {
    marked = new Set(names);
    for (const [name, view] of views) view.root.classList.toggle("answered", marked.has(name));
    root.classList.toggle("answered", [...views.keys()].some((name) => marked.has(name)));
  };
  const update = (pool) => {
    root.classList.toggle("broken", pool.problem !== null);
    say(shared, pool.models.length > 1 ? `${count(pool.models.length)} models share it` : "");
    say(problem, pool.problem ?? "");
    say(replicas, many(pool.replicas.length, "replica"));
    views = keep(bars, pool.replicas.slice(0, MAX_BARS), (replica) => replica.name, bar);
    say(more, pool.replicas.length > MAX_BARS ? `+${pool.replicas.length - MAX_BARS}` : "");
    kv.style.width = `${100 * Math.min(1, pool.kvUse)}%`;
    keep(facts, factsOf(pool), ([name]) => name, factLine);
    mark(marked);
  };
  return { root, update, mark };
}

function factsOf(pool) {
  const prefill = pool.role === "prefill";
  return [
    ["running", `${count(pool.running)}${pool.places ? ` / ${count(pool.places)}` : ""} running`],
    ["waiting", pool.waiting ? `${count(pool.waiting)} waiting` : ""],
    ["tokens", prefill && pool.queuedTokens ? `${count(pool.queuedTokens)} tokens to go` : ""],
    ["kv", `KV ${percent(pool.kvUse, 1)}`],
    ["ttft", prefill && pool.ttftMs.length ? `TTFT p50 ${span(pool.ttftMs)}` : ""],
    ["tpot", !prefill && pool.tpotMs ? `TPOT ${ms(pool.tpotMs)}` : ""],
  ].filter(([, text]) => text);
}

function factLine() {
  const root = el("li");
  return { root, update: ([, text]) => say(root, text) };
}

function bar() {
  const fill = el("span", { class: "fill" });
  const root = el("li", {}, fill);
  const update = (replica) => {
    fill.style.height = `${100 * Math.min(1, replica.kv_use)}%`;
    root.classList.toggle("busy", replica.busy);
    root.title = [
      replica.name,
      `${count(replica.running)} running`,
      `${count(replica.waiting)} waiting`,
      `KV ${percent(replica.kv_use, 1)}`,
      replica.tpot_ms ? `TPOT ${ms(replica.tpot_ms)}` : "",
    ].filter(Boolean).join(", ");
  };
  return { root, update };
}

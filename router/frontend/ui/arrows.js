/** Curves between boxes, drawn behind them. Their width grows with the logarithm of the load. */

import { svg } from "./dom.js";
import { rate } from "./words.js";

const PORT_GAP = 15; // px between two arrows at the side of a pool, which leaves room for their labels
const LABEL_ROOM = 90; // px; in a narrower gap there are no labels, the models have the figures
const DENSE_GAP = 19; // px; arrows that begin closer together have labels only when pointed at
const THIN = 1.5;
const THICK = 11;
const SCALE = { "req/s": 10, "tok/s": 0.5 }; // of like width: 10 requests and 200 tokens a second

/** Pixels, for a load per second; `null` is not known. */
export function widthOf(perS, unit) {
  return Math.min(THICK, THIN + 3 * Math.log10(1 + (perS ?? 0) * SCALE[unit]));
}

/**
 * Where arrows meet the sides of boxes: at each side in the order of the boxes at their other ends, so
 * that they do not cross there. `top(key)` is a box's upper end, `height(key)` its height, px.
 * Gives for every arrow `[y where it begins, y where it ends]`.
 */
export function ports(arrows, top, height) {
  const ends = arrows.map(() => [0, 0]);
  for (const [end, own, other] of [[0, "from", "to"], [1, "to", "from"]]) {
    const sides = Map.groupBy(arrows.keys(), (index) => arrows[index][own]);
    for (const [key, indices] of sides) {
      const far = (index) => top(arrows[index][other]);
      indices.sort((a, b) => far(a) - far(b) || a - b);
      const gap = height(key) / (indices.length + 1);
      indices.forEach((index, place) => (ends[index][end] = top(key) + gap * (place + 1)));
    }
  }
  return ends;
}

export class Arrows {
  #layer = svg("g");
  #paths = new Map();
  #boxes = new Map();
  #arrows = [];
  #at = null;

  constructor(root) {
    this.root = root;
    this.svg = svg("svg", { class: "arrows", "aria-hidden": "true" }, this.#layer);
    root.append(this.svg);
  }

  /** `boxes` are elements by key, `arrows` lead from one key to another. */
  show(boxes, arrows) {
    this.#boxes = boxes;
    this.#arrows = arrows;
    const counts = new Map();
    for (const { from, to } of arrows) for (const key of [`${from}>`, `>${to}`]) counts.set(key, (counts.get(key) ?? 0) + 1);
    for (const [key, box] of boxes) {
      const most = Math.max(counts.get(`${key}>`) ?? 0, counts.get(`>${key}`) ?? 0);
      if (box.dataset.pool) box.style.minHeight = `${(most + 1) * PORT_GAP}px`;
    }
    this.draw();
  }

  /** Where boxes are may have changed. */
  draw() {
    const around = this.root.getBoundingClientRect();
    const rects = new Map([...this.#boxes].map(([key, box]) => [key, box.getBoundingClientRect()]));
    this.svg.setAttribute("viewBox", `0 0 ${around.width} ${around.height}`);
    const arrows = this.#arrows.filter(({ from, to }) => rects.has(from) && rects.has(to));
    const ends = ports(arrows, (key) => rects.get(key).top - around.top, (key) => rects.get(key).height);
    const seen = new Set();
    arrows.forEach((arrow, index) => {
      const key = `${arrow.model} ${arrow.unit}`;
      seen.add(key);
      const x1 = rects.get(arrow.from).right - around.left;
      const x2 = rects.get(arrow.to).left - around.left;
      this.#path(key, arrow).update(arrow, x1, ends[index][0], x2, ends[index][1]);
    });
    for (const { root, arrow } of this.#paths.values()) {
      const beside = arrows.filter(({ from }) => from === arrow.from).length;
      const gap = (rects.get(arrow.from)?.height ?? 0) / (beside + 1);
      root.classList.toggle("dense", beside > 1 && gap < DENSE_GAP);
    }
    for (const [key, path] of this.#paths) {
      if (seen.has(key)) continue;
      path.root.remove();
      this.#paths.delete(key);
    }
    this.point(this.#at);
  }

  /** Dim all arrows but those of a model or a pool; null ends it. */
  point(at) {
    this.#at = at;
    this.root.classList.toggle("pointed", at !== null);
    for (const { root, arrow } of this.#paths.values()) {
      const hit = at && (at.model === arrow.model || (at.pool && [arrow.from, arrow.to].includes(at.pool)));
      root.classList.toggle("hit", Boolean(hit));
    }
  }

  #path(key, arrow) {
    if (!this.#paths.has(key)) {
      const path = new Path(arrow);
      this.#paths.set(key, path);
      this.#layer.append(path.root);
    }
    return this.#paths.get(key);
  }
}

class Path {
  #line = svg("path", { class: "line" });
  #tip = svg("path", { class: "tip" });
  #label = svg("text");

  constructor(arrow) {
    this.arrow = arrow;
    this.root = svg("g", {}, this.#line, this.#tip, this.#label);
    this.root.dataset.of = arrow.model;
    this.root.dataset.unit = arrow.unit;
  }

  update(arrow, x1, y1, x2, y2) {
    this.arrow = arrow;
    const busy = arrow.perS > 0 || arrow.busy;
    const width = widthOf(arrow.perS, arrow.unit);
    const head = 5 + width / 2; // the tip begins where the line ends
    const bend = (x2 - x1) / 2;
    this.root.setAttribute("class", `hue${arrow.hue}${busy ? " busy" : ""}${arrow.broken ? " broken" : ""}`);
    this.#line.setAttribute("d", `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - head} ${y2}`);
    this.#line.style.strokeWidth = `${width}px`;
    this.#tip.setAttribute("d", `M${x2} ${y2} l${-head} ${-head / 2 - 1} v${head + 2} z`);
    const label = x2 - x1 >= LABEL_ROOM ? rate(arrow.perS, arrow.unit) : "";
    if (this.#label.textContent !== label) this.#label.textContent = label;
    this.#label.setAttribute("x", x1 + 6);
    // On the side from which the curve bends away.
    this.#label.setAttribute("y", y2 < y1 ? y1 + width / 2 + 12 : y1 - width / 2 - 3);
  }
}

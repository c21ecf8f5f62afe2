/** Puts the page together: answers of `/status` go to the picture and the table, prompts to the box. */

import { AskBox } from "./ask.js";
import { say } from "./dom.js";
import { Figures } from "./figures.js";
import { Picture } from "./picture.js";
import { poll } from "./poll.js";
import { ModelTable } from "./table.js";
import { many } from "./words.js";

const at = (id) => document.getElementById(id);
const figures = new Figures();
const picture = new Picture(at("picture"), (model) => ask.choose(model));
const ask = new AskBox(at("ask"), at("answer"), (names) => picture.mark(names));
const table = new ModelTable(at("models"), (name) => picture.hue(name));
let answeredMs = null;

poll("status", () => ask.headers(), show, trouble);

function show(status) {
  answeredMs = performance.now();
  const now = figures.add(status, answeredMs);
  document.body.classList.remove("stale");
  at("trouble").hidden = true;
  document.body.classList.toggle("ready", now.ready);
  say(at("summary"), summary(now));
  say(at("models-note"), note(now.routers));
  picture.show(now);
  table.show(now);
  ask.offer(now.models.map((model) => model.name));
}

/** The last figures stay, greyed: they are better than none, and their age is said. */
function trouble(message) {
  document.body.classList.add("stale");
  const age = answeredMs === null ? "" : ` The last answer is ${many(Math.round((performance.now() - answeredMs) / 1000), "second")} old.`;
  say(at("trouble"), `${message[0].toUpperCase()}${message.slice(1)}; asking again every second.${age}`);
  at("trouble").hidden = false;
}

function summary({ version, ready, pools, models, routers, streams }) {
  const replicas = pools.reduce((total, pool) => total + pool.replicas.length, 0);
  return [
    ready ? "ready" : "not ready",
    many(models.length, "model"),
    `${many(replicas, "replica")} in ${many(pools.length, "pool")}`,
    many(routers.replicas, "router"),
    many(streams, "open stream"),
    `version ${version}`,
  ].join(" · ");
}

function note({ replicas, heard }) {
  if (replicas === 1) return "Counted since the router started.";
  return (
    `Each router counts for itself, since it started: these are the sums over the ${heard} of ${replicas} routers that ` +
    "this page has heard of, and the times of the slowest."
  );
}

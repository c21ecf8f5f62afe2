/**
 * What the page shows, out of the answers of `/status`.
 *
 * Pools are the same in every answer. Models are counted by each router for itself, and one answer comes from
 * one router, so answers are kept by router: counts are added up over those that were heard of, rates are
 * differences between two answers of the same router, and of a quantile the slowest router's is shown.
 */

const WINDOW_MS = 4000; // rates are of so long, or of the time between two answers of that router
const FORGET_MS = 60_000; // a router that has not answered for so long is gone
const RATES = ["admitted", "prompt_tokens", "output_tokens"];
const QUANTILES = ["ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms", "tpot_p95_ms"];

export class Figures {
  #routers = new Map();

  /** Take in an answer that came at `nowMs`, and give what to show. */
  add(status, nowMs) {
    const name = status.router?.name || String(status.router?.pid ?? "");
    const replicas = Math.max(1, status.router?.replicas ?? 1);
    // Answers come from any of R routers, so one may be silent for long among many.
    for (const [other, kept] of this.#routers) {
      if (nowMs - kept.samples.at(-1).atMs > FORGET_MS * Math.max(1, replicas / 4)) this.#routers.delete(other);
    }
    const sample = { atMs: nowMs, models: new Map(status.models.map((model) => [model.name, model])) };
    const samples = [...(this.#routers.get(name)?.samples ?? []), sample];
    // The newest of those that are old enough is the other end of the difference.
    while (samples.length > 2 && nowMs - samples[1].atMs >= WINDOW_MS) samples.shift();
    this.#routers.set(name, { samples, streams: status.router?.streams ?? 0 });
    const routers = [...this.#routers.values()];
    const models = status.models.map(({ name }) => model(name, status.pools, routers));
    return {
      version: status.version,
      ready: status.ready,
      pools: status.pools.map((each) => pool(each, models)),
      models,
      routers: { replicas: Math.max(replicas, routers.length), heard: routers.length },
      streams: sum(routers, (router) => router.streams),
    };
  }
}

function pool(status, models) {
  const replicas = status.replicas.map((replica) => ({ ...replica, busy: replica.running + replica.waiting > 0 }));
  const timed = replicas.filter((replica) => replica.tpot_ms > 0);
  const own = models.filter((model) => status.models.includes(model.name) && model.ttft_p50_ms > 0);
  return {
    key: `${status.role}.${status.name}`,
    role: status.role,
    name: status.name,
    models: status.models,
    problem: status.problem,
    replicas,
    running: sum(replicas, (replica) => replica.running),
    waiting: sum(replicas, (replica) => replica.waiting),
    places: sum(replicas, (replica) => replica.max_running ?? 0),
    queuedTokens: sum(replicas, (replica) => replica.queued_prompt_tokens),
    kvUse: replicas.length ? sum(replicas, (replica) => replica.kv_use) / replicas.length : 0,
    tpotMs: timed.length ? sum(timed, (replica) => replica.tpot_ms) / timed.length : 0,
    ttftMs: own.map((model) => model.ttft_p50_ms),
  };
}

function model(name, pools, routers) {
  const of = (role) => pools.find((pool) => pool.role === role && pool.models.includes(name));
  const last = routers.map((router) => router.samples.at(-1).models.get(name)).filter(Boolean);
  const total = (read) => sum(last, read);
  const shown = {
    name,
    prefill: keyOf(of("prefill")),
    decode: keyOf(of("decode")),
    problem: of("prefill")?.problem ?? of("decode")?.problem ?? null,
    running: total((each) => each.live?.running ?? 0),
    queued: total((each) => each.live?.queued ?? 0),
    requests: total((each) => sum(Object.values(each.requests), (number) => number)),
    cancelled: total((each) => each.requests.cancelled ?? 0),
    refused: total((each) => each.live?.refused ?? each.requests.refused ?? 0),
    failed: total((each) => (each.requests.failed ?? 0) + (each.requests.unavailable ?? 0)),
    promptTokens: total((each) => each.prompt_tokens),
    cachedTokens: total((each) => each.cached_tokens),
    crossTokens: total((each) => each.cross_model_tokens),
    outputTokens: total((each) => each.live?.output_tokens ?? each.output_tokens),
  };
  for (const quantile of QUANTILES) shown[quantile] = Math.max(0, ...last.map((each) => each[quantile]));
  for (const key of RATES) shown[`${key}_per_s`] = ratePerS(name, key, routers);
  return shown;
}

function keyOf(pool) {
  return pool ? `${pool.role}.${pool.name}` : null;
}

/** Over all routers of which there are two answers; null before that. */
function ratePerS(name, key, routers) {
  let total = null;
  for (const { samples } of routers) {
    const now = samples.at(-1).models.get(name)?.live;
    const then = samples[0].models.get(name)?.live;
    const seconds = (samples.at(-1).atMs - samples[0].atMs) / 1000;
    if (now && then && seconds > 0) total = (total ?? 0) + Math.max(0, now[key] - then[key]) / seconds;
  }
  return total;
}

function sum(items, read) {
  return items.reduce((total, item) => total + read(item), 0);
}

"""The rows about requests: pools, models, admission."""

from cluster.dashboards.grafana import Panel, Query, Row
from cluster.dashboards.promql import largest, metric, quantile, rate, ratio, total

CLUSTER = 'job=~"$job"'
POOL = (CLUSTER, 'pool=~"$pool"')
MODEL = (CLUSTER, 'model=~"$model"')
PREFILL, DECODE = 'role="prefill"', 'role="decode"'
BY_POOL, POOL_NAME = "role, pool", "{{role}}.{{pool}}"


def _percentiles(stage: str, role: str, by: str, legend: str, matchers: tuple[str, ...]) -> tuple[Query, ...]:
    stage_matcher = f'stage="{stage}"'
    return tuple(
        Query(quantile(q, by, "stage_seconds", *matchers, role, stage_matcher), f"{legend} p{q * 100:g}")
        for q in (0.5, 0.95)
    )


def _target(role: str) -> Query:
    return Query(largest("pool", metric("pool_target_seconds", *POOL, role)), "{{pool}} target")


POOLS = Row(
    "Pools",
    (
        Panel(
            "Replicas",
            (Query(largest(BY_POOL, metric("pool_replicas", *POOL)), POOL_NAME),),
            "short",
            "Replicas that the routers see. A pool at 0 answers with 503.",
        ),
        Panel(
            "Requests waiting in replicas",
            (Query(total(BY_POOL, metric("replica_waiting_requests", *POOL)), POOL_NAME),),
            "short",
            "Handed out by a router, and not in the batch yet.",
        ),
        Panel(
            "Requests computing",
            (Query(total(BY_POOL, metric("replica_running_requests", *POOL)), POOL_NAME),),
            "short",
            "In the batches of all replicas of a pool, whatever models share it.",
        ),
        Panel(
            "TTFT",
            (*_percentiles("ttft", PREFILL, "pool", "{{pool}}", POOL), _target(PREFILL)),
            "s",
            "From arrival to the first token, by prefill pool; the target is `ttft_ms` of the spec.",
        ),
        Panel(
            "TPOT",
            (*_percentiles("tpot", DECODE, "pool", "{{pool}}", POOL), _target(DECODE)),
            "s",
            "Per output token after the first, of finished requests; the target is `tpot_ms` of the spec.",
        ),
        Panel(
            "Decode step now",
            (
                Query(largest("pool", metric("replica_step_seconds", *POOL, DECODE)), "{{pool}} slowest"),
                Query(f"min by (pool) ({metric('replica_step_seconds', *POOL, DECODE)})", "{{pool}} fastest"),
            ),
            "s",
            "As replicas measure it; 0 when the last step is long ago.",
        ),
        Panel(
            "KV in use",
            (
                Query(
                    ratio(
                        total(
                            BY_POOL,
                            f"{metric('replica_kv_use_ratio', *POOL)} * {metric('replica_kv_tokens', *POOL)}",
                        ),
                        total(BY_POOL, metric("replica_kv_tokens", *POOL)),
                    ),
                    POOL_NAME,
                ),
            ),
            "percentunit",
            "Of all KV space of a pool.",
            most=1,
        ),
        Panel(
            "KV in use, fullest replica",
            (Query(largest(BY_POOL, metric("replica_kv_use_ratio", *POOL)), POOL_NAME),),
            "percentunit",
            "A full decode replica preempts requests.",
            most=1,
        ),
        Panel(
            "Prompt tokens queued",
            (Query(total("pool", metric("replica_queued_prompt_tokens", *POOL, PREFILL)), "{{pool}}"),),
            "short",
            "Accepted, and their first token is not out.",
        ),
    ),
)

_COMPUTED = f"({rate('model', metric('prompt_tokens_total', *MODEL))} - " + (
    f"({rate('model', metric('cached_tokens_total', *MODEL))} or 0 * "
    f"{rate('model', metric('prompt_tokens_total', *MODEL))}))"
)


def _on_pool(by_model: str, role: str) -> str:
    """Figures of models, each under the name of its pool in that role."""
    where = largest("model, pool", metric("model_pool", *MODEL, role)) + " == 1"
    return f"({by_model}) * on (model) group_left (pool) ({where})"


def _share(by_model: str, role: str) -> str:
    """Of a pool's sum, model by model."""
    parts = _on_pool(by_model, role)
    return f"{parts} / on (pool) group_left () sum by (pool) ({parts})"


_FAILED = 'outcome=~"failed|unavailable"'

MODELS = Row(
    "Models",
    (
        Panel(
            "Requests",
            (Query(rate("model", metric("requests_total", *MODEL)), "{{model}}"),),
            "reqps",
            "Requests that ended, however they ended.",
            stacked=True,
        ),
        Panel(
            "Requests that did not finish",
            (
                Query(
                    rate("model, outcome", metric("requests_total", *MODEL, 'outcome!="finished"')),
                    "{{model}} {{outcome}}",
                ),
            ),
            "reqps",
            "refused: 429, a limit; unavailable: 503, a pool without a replica; cancelled: the client left.",
        ),
        Panel(
            "Errors",
            (
                Query(
                    ratio(
                        rate("model", metric("requests_total", *MODEL, _FAILED)),
                        rate("model", metric("requests_total", *MODEL)),
                    ),
                    "{{model}}",
                ),
            ),
            "percentunit",
            "The part of all requests that failed or found no replica. No line: none ever did.",
        ),
        Panel(
            "Output tokens",
            (Query(rate("model", metric("output_tokens_total", *MODEL)), "{{model}}"),),
            "tokens/s",
            "Sent to clients.",
            stacked=True,
        ),
        Panel(
            "Prompt tokens",
            (Query(rate("model", metric("prompt_tokens_total", *MODEL)), "{{model}}"),),
            "tokens/s",
            "Of prompts whose prefill ended, cached ones too.",
            stacked=True,
        ),
        Panel(
            "TTFT p95",
            (Query(quantile(0.95, "model", "stage_seconds", *MODEL, 'stage="ttft"'), "{{model}}"),),
            "s",
            "From arrival to the first token.",
        ),
        Panel(
            "TPOT p95",
            (Query(quantile(0.95, "model", "stage_seconds", *MODEL, 'stage="tpot"'), "{{model}}"),),
            "s",
            "Per output token after the first.",
        ),
        Panel(
            "Share of prefill pools",
            (Query(_share(_COMPUTED, PREFILL), "{{pool}}: {{model}}"),),
            "percentunit",
            "By prompt tokens that had to be computed, of the models chosen above.",
            most=1,
        ),
        Panel(
            "Share of decode pools",
            (
                Query(
                    _share(rate("model", metric("decode_slot_seconds_total", *MODEL)), DECODE),
                    "{{pool}}: {{model}}",
                ),
            ),
            "percentunit",
            "By time in decode slots, of the models chosen above.",
            most=1,
        ),
    ),
)

ADMISSION = Row(
    "Admission",
    (
        Panel(
            "Requests waiting for a slot",
            (Query(total("model", metric("admission_queued_requests", *MODEL)), "{{model}}"),),
            "short",
            "In the fair queues of all routers.",
            stacked=True,
        ),
        Panel(
            "Requests that hold a slot",
            (Query(total("model", metric("admission_running_requests", *MODEL)), "{{model}}"),),
            "short",
            "From before the prefill to the end of the stream.",
            stacked=True,
        ),
        Panel(
            "Refusals by limit",
            (
                Query(
                    rate("model, outcome", metric("admission_refused_total", *MODEL)), "{{model}} {{outcome}}"
                ),
            ),
            "reqps",
            "429, and which limit was reached.",
        ),
        Panel(
            "Wait for a slot",
            (
                Query(quantile(0.5, "model", "stage_seconds", *MODEL, 'stage="admit"'), "{{model}} p50"),
                Query(quantile(0.95, "model", "stage_seconds", *MODEL, 'stage="admit"'), "{{model}} p95"),
            ),
            "s",
            "From arrival to the slot, of requests that got one.",
        ),
        Panel(
            "Slots granted, requests that left",
            (
                Query(rate("model", metric("admission_admitted_total", *MODEL)), "{{model}} granted"),
                Query(rate("model", metric("admission_cancelled_total", *MODEL)), "{{model}} left"),
            ),
            "reqps",
            "Who leaves was tired of waiting.",
        ),
        Panel(
            "Slots of decode pools",
            (
                Query(largest("pool", metric("pool_slots", *POOL, DECODE)), "{{pool}} slots"),
                Query(largest("pool", metric("pool_running_requests", *POOL, DECODE)), "{{pool}} requests"),
            ),
            "short",
            "Requests that fresh replicas run at a time, and hold.",
        ),
    ),
)

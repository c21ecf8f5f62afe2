"""The rows about KV: transfers, and what sharing brings."""

from cluster.dashboards.grafana import Panel, Query, Row
from cluster.dashboards.promql import largest, metric, quantile, rate, ratio, total
from cluster.dashboards.rows_serving import BY_POOL, CLUSTER, DECODE, MODEL, POOL, POOL_NAME, PREFILL

WAY, WAY_NAME = "role, pool, transport", "{{role}}.{{pool}} {{transport}}"


def _ledger_ratio(part: str, whole: str) -> str:
    """Of two sums of the ledger, by transport."""
    sums = (rate(WAY, metric(f"ledger_{name}_total", *POOL)) for name in (part, whole))
    return ratio(*sums)


TRANSFERS = Row(
    "Transfers",
    (
        Panel(
            "KV moved",
            (Query(rate(WAY, metric("ledger_bytes_total", *POOL)), WAY_NAME),),
            "Bps",
            "Saves of prefill replicas, loads of decode replicas; shared prompts are saved once.",
        ),
        Panel(
            "Time of one copy",
            (Query(_ledger_ratio("copy_seconds", "copies"), WAY_NAME),),
            "s",
            "The mean, copying alone.",
        ),
        Panel(
            "Bandwidth while copying",
            (Query(_ledger_ratio("bytes", "copy_seconds"), WAY_NAME),),
            "Bps",
            "Bytes over the seconds of copying.",
        ),
        Panel(
            "Hidden part of copies",
            (Query(_ledger_ratio("hidden_seconds", "copy_seconds"), WAY_NAME),),
            "percentunit",
            "Passed while the prefill still computed, so no request waited for it.",
            most=1,
        ),
        Panel(
            "Open tickets",
            (Query(total(WAY, metric("ledger_open_tickets", *POOL)), WAY_NAME),),
            "short",
            "Handoffs that are not over.",
        ),
        Panel(
            "Tickets by outcome",
            (
                Query(
                    rate("role, pool, outcome", metric("ledger_tickets_total", *POOL)),
                    f"{POOL_NAME} {{{{outcome}}}}",
                ),
            ),
            "ops",
            "expired: nobody came before the lease ended.",
        ),
        Panel(
            "Stranded KV blocks",
            (Query(rate(BY_POOL, metric("ledger_stranded_block_seconds_total", *POOL)), POOL_NAME),),
            "short",
            "KV blocks kept for a reader who never came: block seconds per second.",
        ),
        Panel(
            "Failed copies",
            (
                Query(
                    rate("role, pool, kind", metric("ledger_failures_total", *POOL)),
                    f"{POOL_NAME} {{{{kind}}}}",
                ),
            ),
            "ops",
            "By class of failure (docs/kvtransfer.md, Ledger).",
        ),
        Panel(
            "Handoff p95",
            (
                Query(
                    quantile(0.95, "pool", "stage_seconds", *POOL, DECODE, 'stage="handoff"'), "{{pool}} p95"
                ),
            ),
            "s",
            "Both copies of a handoff, as a request sees them, by decode pool.",
        ),
    ),
)

_USERS = largest("model, role, pool", metric("model_pool", *POOL))
_OF_PROMPTS = ("pool_prompt_tokens_total", *POOL, PREFILL)


def _share_of_prompts(counter: str) -> str:
    """Of all prompt tokens of a prefill pool."""
    return ratio(
        rate("pool", metric(counter, *POOL, PREFILL)),
        rate("pool", metric(*_OF_PROMPTS)),
    )


SHARING = Row(
    "Sharing",
    (
        Panel(
            "Replicas saved",
            (Query(largest("", metric("saved_replicas", CLUSTER)), "replicas"),),
            "short",
            "Against the same models, each on a prefill and a decode pool of its own, as large as those that "
            "they share now.",
            kind="stat",
        ),
        Panel(
            "GPUs saved",
            (Query(largest("", metric("saved_gpus", CLUSTER)), "GPUs"),),
            "short",
            "The same, in GPUs: what `heliostat plan` says under Totals, at the present sizes.",
            kind="stat",
        ),
        Panel(
            "Models per pool",
            (
                Query(
                    f"count by ({BY_POOL}) ({_USERS} == 1)",
                    POOL_NAME,
                ),
            ),
            "short",
            "Several behind a prefill pool: PrefillShare; several behind a decode pool: SUN.",
        ),
        Panel(
            "Prompt tokens from caches",
            (Query(_share_of_prompts("pool_cached_tokens_total"), "{{pool}}"),),
            "percentunit",
            "The part of all prompt tokens that was not computed again.",
            most=1,
        ),
        Panel(
            "Prompt tokens that another model had brought",
            (Query(_share_of_prompts("pool_cross_model_cached_tokens_total"), "{{pool}}"),),
            "percentunit",
            "The cross-model hit ratio: what dedicated prefill pools would have computed.",
            most=1,
        ),
        Panel(
            "Handoffs by model",
            (Query(rate("model", metric("transfer_bytes_total", *MODEL)), "{{model}}"),),
            "Bps",
            "KV of all handoffs.",
            stacked=True,
        ),
    ),
)

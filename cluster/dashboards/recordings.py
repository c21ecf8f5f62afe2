"""What Prometheus keeps for alerts and for long graphs, per cluster (`job`)."""

from cluster.dashboards.promql import largest, metric, quantile, rate, ratio, total
from cluster.dashboards.rules import Recording

POOL, MODEL = "job, role, pool", "job, model"
WINDOW = "5m"
PREFILL, DECODE = 'role="prefill"', 'role="decode"'


def _rate(by: str, name: str, *matchers: str) -> str:
    return rate(by, metric(name, *matchers), WINDOW)


def _part(failed: str, well: str) -> str:
    """What failed, of all; nothing where nothing ever failed."""
    return f"{failed} / ({failed} + ({well} or 0 * {failed}))"


_KV = f"{metric('replica_kv_use_ratio')} * {metric('replica_kv_tokens')}"

RECORDINGS = (
    Recording("heliostat:pool_replicas:max", largest(POOL, metric("pool_replicas"))),
    Recording("heliostat:pool_target_seconds:max", largest(POOL, metric("pool_target_seconds"))),
    Recording(
        "heliostat:pool_ttft_seconds:p95",
        quantile(0.95, POOL, "stage_seconds", PREFILL, 'stage="ttft"', window=WINDOW),
    ),
    Recording(
        "heliostat:pool_tpot_seconds:p95",
        quantile(0.95, POOL, "stage_seconds", DECODE, 'stage="tpot"', window=WINDOW),
    ),
    Recording(
        "heliostat:pool_kv_use:ratio", ratio(total(POOL, _KV), total(POOL, metric("replica_kv_tokens")))
    ),
    Recording(
        "heliostat:pool_prefill_failures:ratio5m",
        _part(
            _rate(POOL, "pool_failed_legs_total", PREFILL),
            _rate(POOL, "stage_seconds_count", PREFILL, 'stage="prefill"'),
        ),
    ),
    Recording(
        "heliostat:pool_copy_failures:ratio5m",
        _part(_rate(POOL, "ledger_failures_total"), _rate(POOL, "ledger_copies_total")),
    ),
    Recording("heliostat:pool_stranded_blocks:rate5m", _rate(POOL, "ledger_stranded_block_seconds_total")),
    Recording(
        "heliostat:pool_cross_model_hits:ratio5m",
        ratio(
            _rate(POOL, "pool_cross_model_cached_tokens_total", PREFILL),
            _rate(POOL, "pool_prompt_tokens_total", PREFILL),
        ),
    ),
    Recording("heliostat:model_requests:rate5m", _rate(MODEL, "requests_total")),
    Recording("heliostat:model_output_tokens:rate5m", _rate(MODEL, "output_tokens_total")),
    Recording(
        "heliostat:model_failures:ratio5m",
        ratio(
            _rate(MODEL, "requests_total", 'outcome=~"failed|unavailable"'), _rate(MODEL, "requests_total")
        ),
    ),
    Recording(
        "heliostat:model_refusals:ratio5m",
        ratio(_rate(MODEL, "requests_total", 'outcome="refused"'), _rate(MODEL, "requests_total")),
    ),
    Recording(
        "heliostat:event_loop_stall_seconds:p99", largest("job", metric("event_loop_stall_p99_seconds"))
    ),
)

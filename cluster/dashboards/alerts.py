"""What an operator is called for. Each alert has a section in docs/observability.md: what to look at first.

`page`: clients get errors now. `ticket`: something is on the way there.
"""

from cluster.dashboards.promql import largest, metric
from cluster.dashboards.recordings import POOL
from cluster.dashboards.rules import Alert

_AT_ZERO_ON_PURPOSE = f" unless on ({POOL}) {largest(POOL, metric('pool_wanted_replicas'))} == 0"

ALERTS = (
    Alert(
        "HeliostatNoRouter",
        metric("pool_replicas"),
        "absent",
        0,
        "2m",
        "page",
        "No router reports: the cluster is down, or Prometheus does not reach it.",
    ),
    Alert(
        "HeliostatPoolWithoutReplica",
        "heliostat:pool_replicas:max",
        "==",
        0,
        "1m",
        "page",
        "{{ $labels.role }}.{{ $labels.pool }} has no replica: its models answer 503.",
        unless=_AT_ZERO_ON_PURPOSE,
    ),
    Alert(
        "HeliostatModelFailing",
        "heliostat:model_failures:ratio5m",
        ">",
        0.05,
        "2m",
        "page",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} fail.",
    ),
    Alert(
        "HeliostatPrefillFailing",
        "heliostat:pool_prefill_failures:ratio5m",
        ">",
        0.01,
        "2m",
        "page",
        "{{ $value | humanizePercentage }} of the prefills in {{ $labels.pool }} fail.",
    ),
    Alert(
        "HeliostatTransfersFailing",
        "heliostat:pool_copy_failures:ratio5m",
        ">",
        0.01,
        "2m",
        "page",
        "{{ $value | humanizePercentage }} of the KV copies of {{ $labels.role }}.{{ $labels.pool }} fail.",
    ),
    Alert(
        "HeliostatAdmissionRefusing",
        "heliostat:model_refusals:ratio5m",
        ">",
        0.01,
        "5m",
        "ticket",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} are refused.",
    ),
    Alert(
        "HeliostatTtftAboveTarget",
        "heliostat:pool_ttft_seconds:p95 / heliostat:pool_target_seconds:max",
        ">",
        1,
        "10m",
        "ticket",
        "TTFT (p95) behind prefill.{{ $labels.pool }} is {{ $value | humanize }} times its target.",
    ),
    Alert(
        "HeliostatTpotAboveTarget",
        "heliostat:pool_tpot_seconds:p95 / heliostat:pool_target_seconds:max",
        ">",
        1,
        "10m",
        "ticket",
        "TPOT (p95) of decode.{{ $labels.pool }} is {{ $value | humanize }} times its target.",
    ),
    Alert(
        "HeliostatKvNearlyFull",
        "heliostat:pool_kv_use:ratio",
        ">",
        0.95,
        "5m",
        "ticket",
        "{{ $labels.role }}.{{ $labels.pool }} uses {{ $value | humanizePercentage }} of its KV space.",
    ),
    Alert(
        "HeliostatStrandedKvGrowing",
        "heliostat:pool_stranded_blocks:rate5m",
        ">",
        1000,
        "10m",
        "ticket",
        "{{ $labels.role }}.{{ $labels.pool }} keeps {{ $value | humanize }} KV blocks that nobody reads.",
    ),
    Alert(
        "HeliostatEventLoopStalled",
        "heliostat:event_loop_stall_seconds:p99",
        ">",
        0.1,
        "5m",
        "ticket",
        "A router's event loop is {{ $value | humanizeDuration }} late (p99): tokens are as late.",
    ),
)

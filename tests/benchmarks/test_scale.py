"""The scale benchmark's arithmetic, and one tiny cluster through all of its parts."""

from dataclasses import fields, replace

import pytest
from rich.console import Console

from benchmarks.report import Metric, Report, make_report
from benchmarks.scale import OUT, QUICK, cost_metrics, knowledge_metrics, speed, speed_metrics
from benchmarks.scale_costs import USABLE, Costs, Traffic, measure_costs, routers_needed, share
from benchmarks.scale_parts import KEYS, SIDES, Plan, limits_table, traffic
from benchmarks.scale_runs import (
    CHAT,
    SLO,
    Knowledge,
    cluster,
    decode_capacity,
    knowledge,
    prefill_capacity,
    run,
)
from benchmarks.scale_tables import PAGE, fill, tables
from heliostat.errors import HeliostatError
from router.policy import POLICIES
from simulator.router import Options

COSTS = Costs(
    decision_us={10: 100.0, 1000: 200.0},
    message_us=5.0,
    frame_us=0.5,
    block_us=0.5,
    send_us=3.0,
    block_bytes=140.0,
    replica_bytes=400.0,
    token_us=30.0,
)
SMALL = Traffic(10, 10, requests=10.0, prompt_tokens=1000, output_tokens=100, tpot_ms=10.0)


def test_requests_are_shared_by_routers_and_kv_events_are_not() -> None:
    one, four = share(COSTS, SMALL, 1), share(COSTS, SMALL, 4)
    assert four.requests == pytest.approx(one.requests / 4)
    assert four.kv_events == one.kv_events == pytest.approx(2 * 10 * 1000 / 32 * 0.5e-6)
    assert replace(SMALL, kv_events=False) != SMALL
    assert share(COSTS, replace(SMALL, kv_events=False), 1).kv_events == 0


def test_a_request_costs_its_decisions_and_its_tokens() -> None:
    assert share(COSTS, SMALL, 1).requests == pytest.approx(10 * (100 + 100 * 30) / 1e6)


def test_streams_follow_from_littles_law() -> None:
    assert SMALL.streams == pytest.approx(10 * 100 * 0.010 / 10)


def test_a_replica_without_a_stream_for_a_router_beats_instead() -> None:
    """With very many routers nobody has a stream for this one: 20 replicas at 10 beats a second."""
    lonely = share(COSTS, SMALL, 1_000_000)
    assert lonely.steps == pytest.approx(0.0, abs=1e-6)
    assert lonely.beats == pytest.approx(20 * 10 * 5e-6, rel=1e-3)


@pytest.mark.parametrize("factor", [1, 30, 300, 1000])
def test_the_fewest_routers_keep_below_the_limit_and_one_less_does_not(factor: int) -> None:
    load = replace(SMALL, requests=SMALL.requests * factor)
    needed = routers_needed(COSTS, load)
    assert needed is not None
    assert share(COSTS, load, needed).total <= USABLE
    assert needed == 1 or share(COSTS, load, needed - 1).total > USABLE


def test_where_the_fixed_share_is_too_much_no_number_of_routers_is_enough() -> None:
    assert routers_needed(COSTS, replace(SMALL, prompt_tokens=1e6 * 5)) is None
    metrics, _ = limits_table(replace(COSTS, block_us=1000.0))
    assert metrics["limit_8000_replicas_routers"].value == 0
    assert metrics["limit_8000_replicas_without_kv_events_routers"].value > 0


def test_load_grows_with_the_replicas() -> None:
    assert traffic(2000).requests == pytest.approx(2 * traffic(1000).requests)
    assert traffic(2000).streams == pytest.approx(traffic(1000).streams)


def test_capacities_are_per_replica() -> None:
    assert decode_capacity(30) == pytest.approx(30 * decode_capacity(1))
    assert prefill_capacity(30) == pytest.approx(30 * prefill_capacity(1))


def test_every_side_is_a_policy_and_every_figure_has_its_unit() -> None:
    assert all(policy in POLICIES for policy, _ in SIDES.values())
    assert tuple(KEYS) == tuple(entry.name for entry in fields(Knowledge))


def test_figures_stand_beside_those_of_one_router() -> None:
    one, four = Knowledge(10, 20, 500, 0.9, 0.0, 0, 0.1), Knowledge(11, 24, 510, 0.8, 0.1, 2, 0.2)
    metrics = knowledge_metrics("local_10x4_ours", four, one)
    assert metrics["local_10x4_ours_tpot_p99"].value == 24
    assert metrics["local_10x4_ours_tpot_p99"].peer == 20
    assert len(metrics) == len(KEYS)


def test_a_tiny_cluster_is_as_busy_as_it_was_asked_to_be() -> None:
    done = run(cluster(2, 2), 0.6 * prefill_capacity(2), 30.0, CHAT, Options())
    metrics = speed_metrics(done, replace(QUICK, speed_replicas=4, speed_s=30.0))
    assert 0.3 < metrics["speed_prefill_utilization"].value < 0.9
    assert metrics["speed_requests"].value == done.simulated > 50
    assert metrics["speed_wall"].goal is None
    assert speed_metrics(done, Plan())["speed_wall"].goal == 120.0


def test_routers_that_do_not_talk_serve_the_same_requests() -> None:
    def served(routers: int) -> Knowledge:
        options = Options(routers=routers, kv_events=False)
        return knowledge(2, "round_robin", options, load=0.5, duration_s=30.0, seeds=1)

    one, four = served(1), served(4)
    assert 0 < one.tpot_p50 <= one.tpot_p99 < SLO.tpot_ms
    assert one.refused_share == four.refused_share == 0
    assert one.imbalance > 0


def test_costs_are_measured_and_each_has_a_name() -> None:
    found = measure_costs((4,), rounds=1, token_us=30.0, index_blocks=1000)
    metrics = cost_metrics(found)
    assert all(metric.value > 0 for metric in metrics.values())
    assert "cost_decision_4_replicas" in metrics
    assert len(metrics) == len(fields(Costs))


def test_the_speed_part_prints_what_it_returns() -> None:
    console = Console(record=True, width=120, quiet=True)
    metrics = speed(replace(QUICK, speed_replicas=4, speed_s=5.0), console)
    assert {"speed_wall", "speed_requests_per_cpu_s"} <= metrics.keys()


def report() -> Report:
    """One figure of each kind."""
    one = Knowledge(10, 20, 500, 0.9, 0.0, 0, 0.1)
    found = knowledge_metrics("local_10x1_ours", one, one)
    found |= knowledge_metrics("local_10x4_round_robin", replace(one, tpot_p99=25), one)
    for beat in ("2000", "100"):
        found |= knowledge_metrics(f"beat_{beat}ms", one, one)
    found |= {"speed_wall": Metric(value=99.0, unit="s", better="lower")} | cost_metrics(COSTS)
    return make_report(1, found | limits_table(COSTS)[0])


def test_every_table_has_its_place_on_the_page_and_is_written_once() -> None:
    made = tables(report())
    page = fill(PAGE.read_text(), report())
    assert all(page.count(table) == 1 for table in made.values())
    assert fill(page, report()) == page
    assert "| 10 | 4 | round_robin | 10 | 25 | 500 |" in made["local"]
    assert made["local"].splitlines()[-1].endswith("| 1.25 |")
    assert made["beats"].index("100 ms") < made["beats"].index("2000 ms")
    with pytest.raises(HeliostatError, match="no place"):
        fill("empty", report())


@pytest.mark.skipif(not OUT.exists(), reason="the benchmark has not been run")
def test_the_page_holds_the_committed_figures() -> None:
    page = PAGE.read_text()
    assert fill(page, Report.model_validate_json(OUT.read_text())) == page

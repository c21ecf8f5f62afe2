from pathlib import Path

import pytest

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_icarus import Engine
from benchmarks.headline_plots import draw
from benchmarks.headline_prefillshare import Sessions
from benchmarks.headline_qsun import LOADS
from benchmarks.headline_runs import (
    Bench,
    Metrics,
    cluster,
    execute,
    higher,
    largest_rate,
    middle,
    ratio,
    split_gpus,
)
from benchmarks.headline_sun import SEARCH_FROM, Setting, dedicated, sun
from heliostat.errors import HeliostatError
from heliostat.wire import Role
from simulator.workload.agents import ICARUS_REACT, REACT


@pytest.mark.parametrize("guess", [3.0, 40.0, 100.0, 900.0])
def test_a_search_ends_within_one_half_step_below_the_limit(guess: float) -> None:
    found = largest_rate(lambda rate: rate <= 100.0, guess)
    assert 100.0 / 1.12**0.5 < found <= 100.0


def test_a_search_without_a_limit_says_so() -> None:
    with pytest.raises(HeliostatError, match="guess better"):
        largest_rate(lambda rate: True, 1.0)


def test_a_ratio_is_the_median_of_the_seeds_own_ratios() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == 3.0
    assert middle([3.0, 1.0, 2.0]) == 2.0


def test_a_missing_figure_is_not_taken_for_a_small_one() -> None:
    with pytest.raises(HeliostatError, match="served nothing"):
        middle([1.0, None])


def test_gpus_go_where_most_work_is_but_every_pool_has_one() -> None:
    hot, cold, idle = ((Role.DECODE, name) for name in ("hot", "cold", "idle"))
    assert split_gpus(8, {hot: 6.0, cold: 1.0, idle: 0.0}) == {hot: 6, cold: 1, idle: 1}
    with pytest.raises(HeliostatError, match="too few"):
        split_gpus(2, {hot: 1.0, cold: 1.0, idle: 1.0})


def test_a_cluster_has_the_replicas_that_it_was_asked_for() -> None:
    arrangement = cluster(assumed.LLAMA, "prefillshare", 4, {(Role.PREFILL, "shared"): 4})
    assert arrangement.gpus == 8
    with pytest.raises(HeliostatError, match="no pool"):
        cluster(assumed.LLAMA, "prefillshare", 4, {(Role.PREFILL, "model-1"): 4})


def test_results_come_in_the_order_of_seeds_and_names() -> None:
    bench = Bench(seeds=(1, 2), processes=1)
    setting = Setting(1, 0.0)
    arrangement = dedicated(setting, 1)
    ran = bench.over_seeds(
        execute,
        {str(rate): lambda seed, rate=rate: setting.run(arrangement, rate, 3.0, seed) for rate in (1.0, 4.0)},
    )
    assert [each.summary.seed for each in ran["4.0"]] == [1, 2]
    assert "4/s" in ran["4.0"][0].summary.workload


def test_sun_keeps_the_slo_at_zipf_2_where_a_dedicated_decode_gpu_is_full() -> None:
    setting = Setting(4, 2.0)
    rate = SEARCH_FROM * 3.5
    good = [
        execute(setting.run(arrangement, rate, 8.0, 1)).summary.good_share
        for arrangement in (sun(setting, 4, 4), dedicated(setting, 4))
    ]
    assert good[0] > 0.95
    assert good[1] < 0.85


def test_four_bits_gain_most_at_a_small_load() -> None:
    setting = Setting(2)
    gains = []
    for load in ("small", "large"):
        rate = SEARCH_FROM * 2 * LOADS[load]
        pair = [execute(setting.run(sun(setting, 2, 2, side), rate, 5.0, 1)) for side in ("sun", "qsun")]
        gains.append(ratio([pair[0].summary.tpot_ms.p50], [pair[1].summary.tpot_ms.p50]))
    assert gains[0] > gains[1] > 1.0


def test_shared_prefill_hits_more_prefixes_and_ends_sessions_sooner() -> None:
    sessions = Sessions(REACT)
    shared, own = (execute(sessions.run(side, 2.0, 8.0, 1)).summary for side in ("prefillshare", "dedicated"))
    assert shared.prefix_hit_ratio > own.prefix_hit_ratio + 0.2
    assert middle([shared.session_ms.p95]) < middle([own.session_ms.p95])


def test_icarus_wins_where_adapters_take_turns_and_loses_in_a_crowd_of_short_prompts() -> None:
    engine = Engine(8)
    icarus, base = (
        execute(engine.run(side, 0.8, 20, 1)).summary for side in ("colocated-icarus", "colocated")
    )
    assert middle([icarus.session_ms.p95]) < middle([base.session_ms.p95])
    crowded, plain = (
        execute(engine.crowd(side, 6.0, 1)).summary for side in ("colocated-icarus", "colocated")
    )
    assert middle([crowded.tpot_ms.p50]) > middle([plain.tpot_ms.p50])


def test_a_sensitivity_row_doubles_the_context_and_nothing_else() -> None:
    longer = assumed.longer(ICARUS_REACT)
    assert longer.calls == ICARUS_REACT.calls
    assert longer.output_tokens == ICARUS_REACT.output_tokens
    assert longer.initial_tokens == 2 * ICARUS_REACT.initial_tokens


def test_a_plot_of_the_same_figures_is_the_same_file(tmp_path: Path) -> None:
    metrics: Metrics = {}
    for zipf in assumed.SUN_ZIPF:
        metrics[f"sun_decode_n8_zipf{zipf:g}_goodput_per_gpu"] = higher(40.0, "req/s", peer=20.0)
        metrics[f"sun_half_gpus_limit_n8_zipf{zipf:g}_tpot_p50"] = higher(9.0, "ms", peer=8.0)
    first, second = (draw(metrics, tmp_path / name) for name in ("one", "two"))
    assert [path.name for path in first] == ["sun.svg"]
    assert first[0].read_bytes() == second[0].read_bytes()

"""The decision benchmark runs, over an index as large as it says."""

from benchmarks.router_decision import measure


def test_a_small_run_has_every_figure_in_order() -> None:
    times = measure(replicas=4, index_blocks=1000, rounds=2, decisions=20)
    assert (times.replicas, times.index_blocks) == (4, 1000)
    assert 0 < times.prefill_p50 <= times.prefill_p99
    assert 0 < times.decode_p50 <= times.decode_p99
    assert times.both_p50 <= times.both_p99

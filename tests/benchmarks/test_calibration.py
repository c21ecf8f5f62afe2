import pytest

from benchmarks.calibration_figures import Case, Figures, compare, error_percent, measured, middle, simulated
from benchmarks.calibration_load import ClosedLoop, split
from benchmarks.load import Answer, LoadRequest
from simulator.outcome import Requests

CASE = Case("SUN", 4)


def test_an_error_is_relative_to_what_was_measured() -> None:
    assert error_percent(120.0, 100.0) == pytest.approx(20.0)
    assert error_percent(80.0, 100.0) == pytest.approx(20.0)


def test_both_sides_read_the_same_figures_from_the_same_run() -> None:
    real = measured([Answer(0.0, 0.1, 0.3, (1, 2, 3)), Answer(0.1, 0.3, 0.5, (1, 2, 3))])
    virtual = simulated(
        Requests(
            model=[0, 0],
            session=[0, 1],
            arrived_s=[0.0, 0.1],
            first_s=[0.1, 0.3],
            end_s=[0.3, 0.5],
            prompt_tokens=[5, 5],
            cached_tokens=[0, 0],
            output_tokens=[3, 3],
            refused=[False, False],
        )
    )
    assert real == pytest.approx(virtual)
    assert real == pytest.approx(Figures(tok_per_s=12.0, tpot_p50_ms=100.0, ttft_p50_ms=150.0))


def test_the_goal_is_for_throughput_and_tpot() -> None:
    metrics = compare({CASE: Figures(100.0, 10.0, 50.0)}, {CASE: Figures(110.0, 12.0, 20.0)})
    assert metrics["sun_4_tok_per_s_error"].met is True
    assert metrics["sun_4_tpot_p50_ms_error"].met is False
    assert metrics["sun_4_ttft_p50_ms_error"].met is None
    assert (metrics["sun_4_tok_per_s"].value, metrics["sun_4_tok_per_s"].peer) == (110.0, 100.0)


def test_figures_of_rounds_are_medians_each_by_itself() -> None:
    rounds = [Figures(1.0, 30.0, 5.0), Figures(2.0, 10.0, 5.0), Figures(9.0, 20.0, 5.0)]
    assert middle(rounds) == Figures(2.0, 20.0, 5.0)


def test_simulated_streams_send_what_the_real_ones_send() -> None:
    requests = tuple(LoadRequest(f"m{number}", "x" * 40, number + 2) for number in range(5))
    loop = ClosedLoop(requests, 2, ("m0",))
    sent = [[(call.model, call.output_tokens) for call in each.calls] for each in loop.sessions(0)]
    assert sent == [[(each.model, each.max_tokens) for each in mine] for mine in split(requests, 2)]
    names = [block for each in loop.sessions(0) for call in each.calls for block in call.blocks]
    assert len(names) == len(set(names)) == 10

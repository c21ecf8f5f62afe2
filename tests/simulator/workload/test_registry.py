from pathlib import Path

import pytest
from pydantic import ValidationError

from simulator.workload import WorkloadConfig, make_workload
from simulator.workload.agents import ICARUS_REFLEXION, Agents
from simulator.workload.config import Kind

MODELS = ("a", "b")


def make(**keys: object) -> WorkloadConfig:
    return WorkloadConfig.model_validate(keys)


def test_kind_poisson_alone_is_enough() -> None:
    workload = make_workload(make(kind="poisson"), MODELS)
    assert workload.description == (
        "Poisson of 4/s for 600 s; prompts lognormal of mean 1024 up to 8192, "
        "answers lognormal of mean 256 up to 1024 tokens; 2 models by Zipf 1"
    )
    assert workload.models == MODELS
    assert len(list(workload.sessions(1))) == pytest.approx(2400, abs=150)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("poisson", 400), ("uniform", 400), ("gamma", 400), ("bursts", 667), ("ramp", 1000), ("agents", 400)],
)
def test_every_drawn_kind_has_its_rate(kind: Kind, expected: int) -> None:
    workload = make_workload(make(kind=kind, duration_s=100), MODELS)
    sessions = list(workload.sessions(1))
    assert len(sessions) == pytest.approx(expected, abs=120)
    assert max(session.at_s for session in sessions) <= workload.duration_s == 100.0


def test_a_shape_is_changed_by_the_keys_beside_it() -> None:
    workload = make_workload(make(kind="agents", shape="icarus-reflexion", turns=4, new_tokens=10), MODELS)
    assert isinstance(workload, Agents)
    assert (workload.shape.turns, workload.shape.new_tokens) == (4, 10)
    assert workload.shape.initial_tokens == ICARUS_REFLEXION.initial_tokens
    assert workload.assign == "turns"


def test_traces_are_read_from_the_path_that_is_given(tmp_path: Path) -> None:
    mooncake, azure = tmp_path / "m.jsonl", tmp_path / "a.csv"
    mooncake.write_text('{"timestamp": 0, "input_length": 5, "output_length": 6, "hash_ids": [3]}\n')
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04,40,8\n")
    one = make_workload(make(kind="mooncake", trace=str(mooncake)), MODELS)
    two = make_workload(make(kind="azure", trace=str(azure), block_tokens=10), MODELS)
    assert [session.calls[0].blocks for session in one.sessions(1)] == [(3,)]
    assert [session.calls[0].blocks for session in two.sessions(1)] == [(0, 1, 2, 3)]
    assert (one.block_tokens, two.block_tokens) == (512, 10)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "waves"}, "kind"),
        ({"kind": "poisson", "rate": 3}, "rate"),
        ({"kind": "poisson", "rate_per_s": 0}, "greater than 0"),
        ({"kind": "poisson", "speed": 2.0}, "kind poisson does not read speed; leave it out"),
        ({"kind": "mooncake"}, "needs a file"),
        ({"kind": "bursts", "burst_s": 60}, "burst_s 60 is not below period_s 60"),
        ({"kind": "agents", "zipf": 1.0}, "by turns have no zipf"),
        ({"kind": "agents", "common_tokens": 2000}, "common_tokens 2000 is larger than initial_tokens 1500"),
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        WorkloadConfig.model_validate(keys)

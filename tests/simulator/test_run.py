"""Whole runs: what has to hold of every outcome, whatever the topology."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from heliostat.spec import Family, Limits, Model, Pool, Replicas, SimTiming, Spec
from heliostat.wire import Role
from simulator.outcome import Outcome, Requests
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.topology import TOPOLOGIES, arrange
from simulator.workload.base import Call, Session

MODELS = ("a", "b", "c")
BLOCK = 64
LONGEST = 4096


@dataclass(frozen=True)
class Agents:
    """Sessions of several calls over one growing context, each to another model."""

    rate_per_s: float = 4.0
    duration_s: float = 10.0
    turns: int = 4
    pause_s: float = 0.0
    output_tokens: tuple[int, int] = (10, 60)
    description: str = "agents"
    models: tuple[str, ...] = MODELS
    block_tokens: int = BLOCK

    def sessions(self, seed: int) -> Iterator[Session]:
        draw, at_s, number = random.Random(seed), 0.0, 0
        while (at_s := at_s + draw.expovariate(self.rate_per_s)) < self.duration_s:
            number += 1
            calls, context = [], 0
            for turn in range(self.turns):
                prompt, output = context + draw.randrange(50, 300), draw.randrange(*self.output_tokens)
                names = tuple(1000 * number + place for place in range(-(-prompt // BLOCK)))
                context = prompt + output
                kept = tuple(1000 * number + place for place in range(context // BLOCK))
                calls.append(Call(MODELS[turn % len(MODELS)], prompt, output, names, kept))
            yield Session(f"s{number}", at_s, tuple(calls), self.pause_s)


def _spec(
    prefill: int = 3,
    decode: int = 3,
    *,
    kv_tokens: int = 100_000,
    max_running: int = 64,
    queue_s: float = 30.0,
) -> Spec:
    sim = SimTiming(
        prefill_tokens_per_s=20_000,
        step_ms=5.0,
        per_request_ms=0.1,
        per_kilotoken_ms=0.05,
        handoff_gib_per_s=10.0,
        kv_tokens=kv_tokens,
    )

    def pool(replicas: int) -> Pool:
        number = Replicas(min=1, max=replicas)
        return Pool(weights="m", replicas=number, engine="sim", sim=sim, max_running=max_running)

    return Spec(
        family=Family(base="m", max_model_len=LONGEST),
        prefill={"p": pool(prefill)},
        decode={"d": pool(decode)},
        models={m: Model(prefill="p", decode="d", limits=Limits(queue_s=queue_s)) for m in MODELS},
    )


def _run(
    topology: str = "spec",
    workload: Agents | None = None,
    options: Options | None = None,
    seed: int = 0,
    spec: Spec | None = None,
) -> Outcome:
    arrangement = arrange(spec or _spec(), topology)
    return simulate(
        arrangement, workload or Agents(), Hardware(), directory=Path(), seed=seed, options=options
    )


def _columns(requests: Requests) -> dict[str, list[float]]:
    return {field.name: getattr(requests, field.name) for field in fields(requests)}


OVERLOAD = Agents(rate_per_s=30.0, duration_s=5.0, output_tokens=(300, 600))
SMALL = _spec(1, 1, max_running=4, queue_s=1000.0)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_request_ends_once_and_in_order(topology: str) -> None:
    workload = Agents()
    outcome = _run(topology, workload)
    requests, sessions = outcome.requests, list(workload.sessions(0))
    assert (len(requests), outcome.unfinished) == (sum(len(session.calls) for session in sessions), 0)
    assert not any(requests.refused)
    for number, session in enumerate(sessions):
        rows = [row for row in range(len(requests)) if requests.session[row] == number]
        assert [MODELS[requests.model[row]] for row in rows] == [call.model for call in session.calls]
        assert [requests.output_tokens[row] for row in rows] == [call.output_tokens for call in session.calls]
        assert requests.arrived_s[rows[0]] == pytest.approx(session.at_s)
        for before, after in itertools.pairwise(rows):
            assert requests.end_s[before] == pytest.approx(requests.arrived_s[after])
    for row in range(len(requests)):
        assert requests.arrived_s[row] < requests.first_s[row] <= requests.end_s[row]
        assert 0 <= requests.cached_tokens[row] < requests.prompt_tokens[row]
    assert outcome.elapsed_s == pytest.approx(max(requests.end_s))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_tokens_of_all_steps_are_the_tokens_of_all_answers(topology: str) -> None:
    outcome = _run(topology)
    rows = sum(pool.step_requests for pool in outcome.pools.values())
    colocated = topology.startswith("colocated")
    # An engine that computes the prompt itself samples the first token with its last chunk.
    first_tokens = len(outcome.requests) if colocated else 0
    assert rows + first_tokens == sum(outcome.requests.output_tokens)
    assert (outcome.handoff_bytes == 0) == colocated


@pytest.mark.parametrize(
    ("topology", "workload", "spec"),
    [("prefillshare", Agents(), _spec()), ("sun", OVERLOAD, SMALL)],
    ids=["easy", "cut off"],
)
def test_equal_seeds_give_equal_outcomes_and_others_do_not(
    topology: str, workload: Agents, spec: Spec
) -> None:
    one, same, other = (_run(topology, workload, seed=seed, spec=spec) for seed in (1, 1, 2))
    assert _columns(one.requests) == _columns(same.requests)
    assert (one.pools, one.times_s, one.elapsed_s) == (same.pools, same.times_s, same.elapsed_s)
    assert one.requests.end_s != other.requests.end_s


def test_a_shared_prefill_pool_finds_what_the_session_computed_for_other_models() -> None:
    shared, dedicated = _run("prefillshare"), _run("dedicated")
    assert sum(shared.requests.cached_tokens) > 1.5 * sum(dedicated.requests.cached_tokens)


def test_one_writer_sends_only_the_kv_that_the_decode_replica_lacks() -> None:
    spec = _spec(prefill=1, decode=1)
    assert _run("icarus", spec=spec).handoff_bytes < 0.5 * _run("sun-lora", spec=spec).handoff_bytes


def test_who_finds_no_slot_in_time_is_refused_and_the_session_ends() -> None:
    outcome = _run("sun", OVERLOAD, spec=_spec(1, 1, max_running=4, queue_s=0.5))
    requests = outcome.requests
    refused = [row for row in range(len(requests)) if requests.refused[row]]
    assert len(refused) > 10
    for row in refused:
        assert requests.output_tokens[row] == requests.cached_tokens[row] == 0
        assert requests.first_s[row] == requests.end_s[row] >= requests.arrived_s[row]
        later = [requests.session[after] for after in range(row + 1, len(requests))]
        assert requests.session[row] not in later


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_who_fits_no_replica_is_refused_instead_of_waiting_for_ever(role: Role) -> None:
    spec = _spec()
    pools = spec.prefill if role is Role.PREFILL else spec.decode
    ((name, pool),) = pools.items()
    small = pool.model_copy(update={"sim": pool.sim.model_copy(update={"kv_tokens": 500})})
    outcome = _run(spec=spec.model_copy(update={role.value: {name: small}}))
    rows = range(len(outcome.requests))
    too_long = [row for row in rows if outcome.requests.prompt_tokens[row] > 500]
    assert outcome.unfinished == 0
    assert len(too_long) > 5
    assert all(outcome.requests.refused[row] for row in too_long)
    assert not all(outcome.requests.refused)


def test_a_run_that_cannot_keep_up_is_cut_off_and_says_so() -> None:
    outcome = _run("sun", OVERLOAD, spec=SMALL)
    requests = outcome.requests
    cut = [row for row in range(len(requests)) if not requests.output_tokens[row]]
    assert outcome.unfinished == len(cut) > 10
    assert len({requests.session[row] for row in cut}) == len(cut)
    assert outcome.elapsed_s == pytest.approx(2 * OVERLOAD.duration_s, rel=0.1)
    assert all(requests.arrived_s[row] <= requests.first_s[row] <= requests.end_s[row] for row in cut)
    assert {requests.end_s[row] for row in cut} == {outcome.elapsed_s}


@pytest.mark.parametrize("topology", ["sun", "icarus", "colocated"])
def test_no_replica_holds_more_kv_than_it_has(topology: str) -> None:
    workload = Agents(rate_per_s=1.0, duration_s=20.0, output_tokens=(300, 600))
    replicas = 1 if topology == "colocated" else 2  # a colocated pool has those of both roles
    spec = _spec(replicas, replicas, kv_tokens=6000)
    outcome = _run(topology, workload, spec=spec, options=Options(admission=False))
    uses = [use for pool in outcome.pools.values() for use in pool.kv_use]
    assert 0.9 < max(uses) <= 1.0
    assert sum(pool.preemptions for pool in outcome.pools.values()) > 0
    assert outcome.unfinished == 0


@pytest.mark.parametrize(
    "options",
    [
        Options(oracle=True),
        Options(routers=4),
        Options(admission=False),
        Options(host_cores=2.0),
        Options(policies={Role.DECODE: "round_robin", Role.PREFILL: "sticky_session"}),
    ],
    ids=["oracle", "routers", "no admission", "host", "policies"],
)
def test_options_change_the_run_and_lose_nobody(options: Options) -> None:
    # Enough of everything that there is something to choose, to wait for and to forget.
    workload = Agents(rate_per_s=4.0, duration_s=8.0, output_tokens=(10, 150))
    spec = _spec(kv_tokens=3000, max_running=3)
    plain, other = (_run("spec", workload, made, spec=spec) for made in (None, options))
    assert (len(other.requests), other.unfinished) == (len(plain.requests), 0)
    assert sum(other.requests.output_tokens) == sum(plain.requests.output_tokens)
    assert other.requests.end_s != plain.requests.end_s


def test_without_kv_events_routers_believe_in_prefixes_that_are_gone() -> None:
    workload = Agents(duration_s=8.0, output_tokens=(10, 100))
    told, untold = (
        _run(workload=workload, options=Options(kv_events=events), spec=_spec(kv_tokens=2500), seed=1)
        for events in (True, False)
    )
    assert sum(told.requests.output_tokens) == sum(untold.requests.output_tokens)
    assert sum(told.requests.cached_tokens) != sum(untold.requests.cached_tokens)


def test_cores_that_are_shared_make_everything_slower() -> None:
    plain, shared = _run("sun"), _run("sun", options=Options(host_cores=1.0))
    assert max(shared.requests.end_s) > max(plain.requests.end_s)


def test_a_pause_stands_between_calls_and_not_behind_the_last() -> None:
    outcome = _run(workload=Agents(pause_s=3.0))
    requests = outcome.requests
    for number in set(requests.session):
        rows = [row for row in range(len(requests)) if requests.session[row] == number]
        for before, after in itertools.pairwise(rows):
            assert requests.arrived_s[after] - requests.end_s[before] == pytest.approx(3.0)
    assert outcome.elapsed_s == pytest.approx(max(requests.end_s))


def test_timelines_have_an_entry_for_every_moment() -> None:
    outcome = _run()
    assert len(outcome.times_s) > 200
    for pool in outcome.pools.values():
        assert len(pool.running) == len(pool.waiting) == len(pool.kv_use) == len(outcome.times_s)
        assert max(pool.running) > 0
        assert 0 < pool.busy_s < pool.replicas * outcome.elapsed_s


def test_an_error_in_the_middle_of_a_run_is_raised_and_not_lost() -> None:
    def progress(share: float) -> None:
        if share > 0.5:
            raise ZeroDivisionError("half")

    with pytest.raises(ZeroDivisionError, match="half"):
        simulate(arrange(_spec(), "sun"), Agents(), Hardware(), directory=Path(), progress=progress)

"""Decisions over a board: prompts find their KV, bursts spread, routers that disagree spread as well."""

import random
from collections import Counter

from msgspec.structs import replace

from heliostat.wire import DecodeRequest, Load, PrefillRequest, Role, StepTime, Version
from router.choice import DEFAULT_OUTPUT, Chooser, leg_tokens
from router.policy import DEFAULTS, POLICIES
from router.telemetry import TelemetryBoard

POOL = tuple(f"r{i}" for i in range(8))


def report(replica: str, sequence: int = 1, running: int = 0, queued: int = 0) -> Load:
    return Load(
        replica,
        running,
        0,
        queued,
        0.0,
        sequence,
        64,
        0,
        100_000,
        10.0,
        StepTime(10.0, 0.5, 0.001),
        8000.0,
        (),
        "d",
    )


def chooser(role: Role, seed: int = 0) -> tuple[Chooser, TelemetryBoard]:
    board = TelemetryBoard()
    for name in POOL:
        board.observe(report(name))
    return Chooser(board, POLICIES[DEFAULTS[role]].make(), random.Random(seed).random), board


def prompt(count: int, seed: int | str) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(150_000) for _ in range(count))


def test_a_prompt_finds_its_kv_whichever_model_asks() -> None:
    chooses, board = chooser(Role.PREFILL)
    tokens = prompt(500, 1)
    first = chooses.choose(POOL, "1", PrefillRequest("1", "math", tokens))[0]
    board.ended("1")
    for call, model in enumerate(("math", "code", "chat"), start=2):
        longer = PrefillRequest(str(call), model, tokens + prompt(100, call))
        assert chooses.choose(POOL, str(call), longer)[0] == first
        board.ended(str(call))


def test_a_burst_of_one_prompt_spreads_when_waiting_is_dearer() -> None:
    chooses, _ = chooser(Role.PREFILL)
    shared = prompt(1024, 1)
    count = Counter(
        chooses.choose(POOL, str(i), PrefillRequest(str(i), "math", shared + prompt(256, i)))[0]
        for i in range(160)
    )
    assert len(count) == len(POOL)
    assert max(count.values()) <= 30


def ask_at_once(chooses: Chooser, context: tuple[int, ...], models: int, **hints: object) -> Counter[int]:
    """So many models, each with a question of its own; where their prefills go before any has ended."""
    questions = {f"{context[0]}-m{number}": prompt(60, f"{context[0]} {number}") for number in range(models)}
    return Counter(
        chooses.choose(POOL, call, PrefillRequest(call, call, context + question, **hints))[0]
        for call, question in questions.items()
    )


def test_several_models_that_ask_about_one_context_at_once_have_it_computed_once() -> None:
    context = prompt(2000, "context")
    assert len(ask_at_once(chooser(Role.PREFILL)[0], context, 8, session="ctx")) == 1
    assert len(ask_at_once(chooser(Role.PREFILL)[0], context, 8, reuse_soon=True)) == 1


def test_without_a_word_from_the_client_each_idle_replica_computes_it_again() -> None:
    """It costs nobody's time as long as they are idle; that it is asked again, only the client knows."""
    assert len(ask_at_once(chooser(Role.PREFILL)[0], prompt(2000, "context"), 8)) == 8


def test_a_context_goes_elsewhere_when_its_replica_is_overloaded() -> None:
    chooses, board = chooser(Role.PREFILL)
    context = prompt(2000, "context")
    (home,) = ask_at_once(chooses, context, 1, session="ctx")
    board.ended(f"{context[0]}-m0")
    board.observe(report(POOL[home], 2, queued=3000))
    assert set(ask_at_once(chooses, context, 4, session="ctx")) == {home}
    for number in range(4):
        board.ended(f"{context[0]}-m{number}")
    board.observe(report(POOL[home], 3, queued=5000))
    assert home not in ask_at_once(chooses, context, 1, session="ctx")


def test_routers_that_do_not_know_of_each_other_compute_a_context_at_one_place() -> None:
    homes = {
        next(iter(ask_at_once(chooser(Role.PREFILL, seed)[0], prompt(2000, 0), 1, session="ctx")))
        for seed in range(5)
    }
    assert len(homes) == 1


def test_many_contexts_spread_over_the_pool() -> None:
    chooses, _ = chooser(Role.PREFILL)
    count: Counter[int] = Counter()
    for number in range(64):
        count += ask_at_once(chooses, prompt(2000, number), 4, session=f"ctx-{number}")
    assert set(count.values()) == {32}


def test_a_burst_of_decodes_spreads_evenly() -> None:
    chooses, _ = chooser(Role.DECODE)
    tokens = prompt(300, 1)
    count = Counter(
        chooses.choose(POOL, str(i), DecodeRequest(str(i), "math", tokens, None, b""))[0] for i in range(80)
    )
    assert set(count.values()) == {10}


def test_routers_that_disagree_spread_all_the_same() -> None:
    """Neither knows what the other sends between two reports; reports know of both."""
    routers = [chooser(Role.DECODE, seed) for seed in range(2)]
    total: Counter[str] = Counter()
    for beat in range(20):
        for number, (chooses, _) in enumerate(routers):
            for i in range(8):
                call = f"{beat}-{number}-{i}"
                leg = DecodeRequest(call, "math", prompt(300, i), None, b"")
                best = POOL[chooses.choose(POOL, call, leg)[0]]
                total[best] += 1
        for _, board in routers:
            for name in POOL:
                board.observe(report(name, beat + 2, running=total[name]))
    assert max(total.values()) - min(total.values()) <= 4


def test_only_a_leg_is_booked_and_headroom_with_it() -> None:
    chooses, board = chooser(Role.DECODE)
    assert chooses.choose(POOL, "0", None)
    assert board.candidates(POOL).in_flight.sum() == 0
    leg = DecodeRequest("1", "math", prompt(300, 1), None, b"", max_tokens=50, expected_tokens=80)
    best = chooses.choose(POOL, "1", leg)[0]
    assert board.candidates(POOL).free_kv_tokens[best] == 100_000 - 350
    chooses.sent(POOL[best], "1", leg)
    assert board.candidates(POOL).in_flight.sum() == 1
    board.ended("1")
    assert board.candidates(POOL).free_kv_tokens[best] == 100_000


def test_a_leg_is_as_long_as_it_is_likely_to_get() -> None:
    leg = DecodeRequest("1", "math", (1, 2, 3), None, b"", generated=(4, 5))
    assert leg_tokens(leg) == (5, DEFAULT_OUTPUT)
    assert leg_tokens(PrefillRequest("1", "math", (1, 2))) == (2, 0)


def test_a_pool_without_replicas_has_no_choice() -> None:
    chooses, _ = chooser(Role.PREFILL)
    assert chooses.choose((), "1", PrefillRequest("1", "math", (1, 2))) == ()


def version_of(chooses: Chooser, board: TelemetryBoard, versions: frozenset[str] | None) -> set[str]:
    """The replicas that get a hundred prompts of these versions."""
    calls = [f"{versions} {board.roster.changes} {i}" for i in range(100)]
    legs = [PrefillRequest(call, "math", prompt(64, call), versions=versions) for call in calls]
    took = {POOL[chooses.choose(POOL, leg.request_id, leg)[0]] for leg in legs}
    for call in calls:
        board.ended(call)
    return took


def test_a_leg_goes_to_replicas_of_its_versions_and_nobody_else() -> None:
    chooses, board = chooser(Role.PREFILL)
    for name in POOL[:3]:
        board.roster.observe(name, Version("old"))
    for name in POOL[3:7]:
        board.roster.observe(name, Version("new"))
    assert version_of(chooses, board, frozenset({"old"})) == set(POOL[:3])
    assert version_of(chooses, board, frozenset({"new"})) == set(POOL[3:7])
    assert version_of(chooses, board, None) == set(POOL[:7]), "r7 has not said who it is"
    board.roster.observe("r7", Version("new"))
    assert version_of(chooses, board, frozenset({"new"})) == set(POOL[3:])
    leg = PrefillRequest("x", "math", prompt(64, 0), versions=frozenset({"gone"}))
    assert chooses.choose(POOL, "x", leg) == ()
    assert not board.was_sent("x")


def test_prompts_find_their_kv_by_the_domain_of_their_version() -> None:
    """Two versions write two domains; the first replica's is not everybody's."""
    chooses, board = chooser(Role.PREFILL)
    for name in POOL[:4]:
        board.roster.observe(name, Version("old"))
    for name in POOL[4:]:
        board.roster.observe(name, Version("new"))
        board.observe(replace(report(name, 2), domain="new"))
    shared = prompt(320, 1)
    board.kv_changed("r6", board.index.hashes("new", shared), ())
    board.kv_changed("r1", board.index.hashes("d", shared), ())
    for versions, holder in (({"new"}, "r6"), ({"old"}, "r1")):
        leg = PrefillRequest(holder, "math", shared, versions=frozenset(versions))
        assert POOL[chooses.choose(POOL, holder, leg)[0]] == holder

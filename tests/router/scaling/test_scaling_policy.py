"""Sizes follow load, together, with delays, and to zero only where it is allowed."""

from dataclasses import replace

import pytest

from heliostat.wire import Role, StepTime
from router.scaling import Kind, Memory, Reading, ScaledPool, Served, Wanted, decide

PREFILL = ScaledPool(
    Role.PREFILL, "p", 1, 8, 1, 2000.0, up_delay_s=5, down_delay_s=60, idle_s=30, start_s=20,
    leads_to=frozenset({"d"}),
)  # fmt: skip
DECODE = ScaledPool(
    Role.DECODE, "d", 1, 8, 1, 25.0, up_delay_s=5, down_delay_s=60, idle_s=30, start_s=20
)  # fmt: skip
RATE = 10_000.0
STEP = StepTime(10.0, 0.1, 1e-5)


class House:
    """Pools whose figures a test sets, asked once a second; sizes follow at once."""

    def __init__(self, *pools: ScaledPool, max_gpus: int | None = None, **sizes: int) -> None:
        self.pools, self.max_gpus = pools, max_gpus
        self.sizes = {pool.key: sizes.get(pool.name, pool.least) for pool in pools}
        self.figures: dict[str, dict[str, float]] = {pool.name: {} for pool in pools}
        self.arriving = dict.fromkeys(self.figures, 0.0)
        self.served = dict.fromkeys(self.figures, Served())
        self.memory, self.now_s = Memory(), 1000.0
        self.wanted: dict[str, Wanted] = {}
        self.history: list[dict[str, int]] = []

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            readings = {}
            for key, size in self.sizes.items():
                name, tokens = key[1], self.arriving[key[1]]
                if tokens:  # ten equal prompts a second
                    self.served[name] += Served(10, tokens, tokens, tokens * tokens / 10)
                known = {"rate": RATE} if size and key[0] is Role.PREFILL else {"step": STEP} if size else {}
                given = {"max_running": 256, "kv_tokens": 100_000, **known, **self.figures[name]}
                readings[key] = Reading(size, size, served=self.served[name], **given)
            decision = decide(self.pools, readings, self.memory, self.now_s, self.max_gpus)
            self.memory = decision.memory
            self.wanted = {key[1]: wanted for key, wanted in decision.wanted.items()}
            self.sizes = {key: wanted.replicas for key, wanted in decision.wanted.items()}
            self.history.append({key[1]: size for key, size in self.sizes.items()})

    def size(self, name: str) -> int:
        return next(size for key, size in self.sizes.items() if key[1] == name)


def test_a_prefill_pool_grows_to_what_arrives_and_keeps_room_for_the_target() -> None:
    house = House(PREFILL)
    house.arriving["p"] = 3 * RATE
    house.run(40)
    # 3 are busy all the time; with prompts of 0.3 s, a spare of about 0.26 keeps waits within 1.7 s.
    assert house.size("p") == 4
    assert house.wanted["p"].kind is Kind.ENOUGH and "30000 tokens/s arrive" in house.wanted["p"].reason


def test_a_tighter_ttft_takes_more_replicas() -> None:
    loose, tight = House(PREFILL), House(replace(PREFILL, target_ms=350.0))
    for house in (loose, tight):
        house.arriving["p"] = 3 * RATE
        house.run(40)
    assert tight.size("p") > loose.size("p")


def test_tokens_that_are_cached_need_no_replica() -> None:
    house = House(PREFILL)
    for _ in range(40):
        house.served["p"] += Served(10, 8 * RATE, 0.5 * RATE, (0.5 * RATE) ** 2 / 10)
        house.run(1)
    assert house.size("p") == 1


def test_what_waits_in_routers_counts_as_arriving() -> None:
    house = House(PREFILL)
    house.arriving["p"] = 0.5 * RATE
    house.run(40)
    assert house.size("p") == 1
    for second in range(20):
        house.figures["p"] = {"outside_tokens": second * 3 * RATE}
        house.run(1)
    assert house.size("p") > 2


def test_a_decode_pool_grows_until_its_predicted_tpot_holds() -> None:
    house = House(DECODE)
    house.figures["d"] = {"running": 400, "context_tokens": 40_000, "kv_used_tokens": 40_000}
    house.run(10)
    # 10 + (0.1 * 400 + 1e-5 * 40000) / n within 95 % of 25 ms: n = 3.
    assert house.size("d") == 3 and house.wanted["d"].kind is Kind.ENOUGH


def test_a_decode_pool_grows_for_its_kv() -> None:
    house = House(DECODE)
    house.figures["d"] = {"running": 10, "context_tokens": 350_000, "kv_used_tokens": 350_000}
    house.run(7)
    assert house.size("d") == 4


def test_unknown_slopes_are_taken_for_the_worst() -> None:
    house = House(DECODE, d=2)
    figures = {"running": 20, "context_tokens": 1000, "kv_used_tokens": 1000, "step": StepTime(15.0)}
    house.figures["d"] = figures
    house.run(200)
    assert house.size("d") == 2, "one replica might take twice as long"
    house.figures["d"] = {**figures, "step": StepTime(5.0)}
    house.run(200)
    assert house.size("d") == 1


def test_no_prefill_replica_is_added_for_what_decode_cannot_take() -> None:
    house = House(PREFILL, replace(DECODE, most=2), d=2)
    house.arriving["p"] = 3 * RATE
    house.figures["d"] = {"running": 100, "context_tokens": 900_000, "kv_used_tokens": 200_000}
    house.run(40)
    assert house.size("p") == 1 and house.wanted["p"].kind is Kind.DECODE_FULL
    assert house.wanted["d"].kind is Kind.BOUNDS
    house.figures["d"] = {"running": 10, "context_tokens": 90_000, "kv_used_tokens": 90_000}
    house.run(40)
    assert house.size("p") == 4


def test_requests_outside_do_not_grow_a_decode_pool_that_has_room() -> None:
    house = House(DECODE)
    house.figures["d"] = {"running": 2, "context_tokens": 2000, "kv_used_tokens": 2000, "outside": 500}
    house.run(40)
    assert house.size("d") == 1, "prefill holds them back"
    house.figures["d"] = {"running": 90, "context_tokens": 90_000, "kv_used_tokens": 90_000, "outside": 500}
    house.run(40)
    assert house.size("d") > 2


def test_a_moment_of_load_adds_nothing_and_a_moment_of_quiet_takes_nothing_away() -> None:
    house = House(DECODE)
    busy = {"running": 400, "context_tokens": 40_000, "kv_used_tokens": 40_000}
    house.run(20)
    house.figures["d"] = busy
    house.run(4)
    house.figures["d"] = {}
    house.run(1)
    assert house.size("d") == 1
    house.figures["d"] = busy
    house.run(10)
    assert house.size("d") == 3
    for _ in range(5):
        house.figures["d"] = {}
        house.run(50)
        house.figures["d"] = busy
        house.run(2)
    assert house.size("d") == 3


def test_load_that_swings_within_the_headroom_changes_nothing() -> None:
    house = House(DECODE)
    house.figures["d"] = {"running": 350, "context_tokens": 40_000, "kv_used_tokens": 40_000}
    house.run(100)
    settled = house.size("d")
    house.history.clear()
    for swing in range(300):
        house.figures["d"]["running"] = 380 if swing // 70 % 2 else 320
        house.run(1)
    assert {sizes["d"] for sizes in house.history} == {settled}


def test_a_pool_shrinks_to_its_floor_once_less_has_been_enough_for_the_delay() -> None:
    house = House(DECODE, d=6)
    house.figures["d"] = {"running": 1, "context_tokens": 100, "kv_used_tokens": 100}
    house.run(59)
    assert house.size("d") == 6
    house.run(3)
    assert house.size("d") == 1


def test_only_a_pool_with_min_0_goes_to_zero_and_its_first_call_brings_it_back() -> None:
    asleep, awake = replace(PREFILL, name="asleep", least=0), replace(PREFILL, name="awake")
    house = House(asleep, awake, asleep=2, awake=2)
    for name in ("asleep", "awake"):
        house.arriving[name] = 0.1 * RATE
    house.run(50)
    house.arriving = dict.fromkeys(house.arriving, 0.0)
    house.run(29)
    assert house.size("asleep") >= 1
    house.run(200)
    assert house.size("asleep") == 0 and house.wanted["asleep"].kind is Kind.IDLE
    assert house.size("awake") == 1
    house.figures["asleep"] = {"outside": 1}
    house.run(1)
    assert house.size("asleep") == 1 and house.wanted["asleep"].kind is Kind.CALLED


def test_a_bound_on_gpus_is_shared_by_need_and_takes_nothing_that_runs() -> None:
    small = replace(PREFILL, name="small", leads_to=frozenset())
    house = House(PREFILL, small, max_gpus=6)
    house.arriving.update(p=6 * RATE, small=2 * RATE)
    house.run(40)
    assert house.size("p") + house.size("small") == 6
    assert house.size("p") > house.size("small") >= 2
    assert Kind.GPUS in {wanted.kind for wanted in house.wanted.values()}
    house.max_gpus = 3
    house.run(5)
    assert house.size("p") + house.size("small") == 6


def test_a_fixed_pool_stays_and_an_unknown_speed_changes_nothing() -> None:
    fixed = replace(DECODE, least=2, most=2)
    house = House(fixed, PREFILL, p=3)
    house.figures["d"] = {"running": 5000, "context_tokens": 1, "kv_used_tokens": 1}
    house.figures["p"] = {"rate": 0.0, "queued_tokens": 1e6}
    house.run(200)
    assert house.size("d") == 2 and house.wanted["d"].kind is Kind.FIXED
    assert house.size("p") == 3


def test_a_router_that_counts_from_the_beginning_again_is_no_flood() -> None:
    house = House(PREFILL)
    house.arriving["p"] = 0.5 * RATE
    house.run(60)
    house.served["p"] = Served()
    house.run(60)
    assert {sizes["p"] for sizes in house.history[40:]} == {1}


@pytest.mark.parametrize("pools", [(), (PREFILL,)])
def test_a_pool_without_a_reading_is_left_out(pools: tuple[ScaledPool, ...]) -> None:
    assert decide(pools, {}, Memory(), 0.0).wanted == {}

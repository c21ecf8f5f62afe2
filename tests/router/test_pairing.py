"""Which versions meet, in every order in which the pools of a model may roll."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from heliostat.wire import Adapter, Version
from kvtransfer.fit import version_misfit
from router.pairing import NOBODY, Pinned, Side, VersionPairing
from router.roster import Roster

CONTRACT = "dtype=bfloat16"


def version(name: str, *partners: str, **fields: object) -> Version:
    made = Version(name, f"{name}-weights", name, f"{name}-kv", CONTRACT, partners=partners)
    return replace(made, **fields)


# Without cards: what routers of two specs, (p1, d1) and (p2, d2), have told.
P1, D1 = version("p1", "d1"), version("d1", "p1")
P2, D2 = version("p2", "d2"), version("d2", "p2")


class Pools:
    """A model's two pools as the beats see them."""

    def __init__(
        self,
        prefill: tuple[Version, ...],
        decode: tuple[Version, ...],
        *,
        draw: float = 0.0,
        prefill_adapter: Adapter | None = None,
        untrained_pair: bool = False,
    ) -> None:
        self.roster = Roster()
        self.draw = draw
        self.set(prefill, decode)
        self.pairing = VersionPairing(
            self.roster,
            Side(lambda: self.prefill, "p1", prefill_adapter),
            Side(lambda: self.decode, "d1"),
            lambda: self.draw,
            untrained_pair=untrained_pair,
        )

    def set(self, prefill: tuple[Version, ...], decode: tuple[Version, ...]) -> None:
        self.prefill = tuple(f"p#{number}-{each.id}" for number, each in enumerate(prefill))
        self.decode = tuple(f"d#{number}-{each.id}" for number, each in enumerate(decode))
        for name, each in zip(self.prefill + self.decode, prefill + decode, strict=True):
            self.roster.observe(name, each)

    def drawn(self, avoid: frozenset[str] = frozenset()) -> Counter[str]:
        """How often each version writes, of a hundred requests."""
        count: Counter[str] = Counter()
        for number in range(100):
            self.draw = number / 100
            choice = self.pairing.writers(None, avoid)
            count.update(choice.versions or ())
        return count


def test_pools_of_one_version_each_are_asked_for_it() -> None:
    """A replica that comes up meanwhile may be of another one: it has to say who it is first."""
    pools = Pools((P1, P1), (D1, D1))
    assert pools.pairing.writers(None, frozenset()).versions == {"p1"}
    assert pools.pairing.readers(P1, None).versions == {"d1"}
    assert pools.pairing.readers(None, None).versions == {"d1"}
    assert pools.pairing.readers(P2, None).problem, "a ticket of a version that has not been seen"


def test_replicas_that_have_not_said_who_they_are_are_waited_for() -> None:
    stranger = Version()
    for pools in (Pools((stranger,), (D1,)), Pools((P1,), (stranger,))):
        assert pools.pairing.writers(None, frozenset()).problem.endswith("has not said yet what it runs")
    assert pools.pairing.readers(P1, None).problem == pools.pairing.readers(None, None).problem


@pytest.mark.parametrize(("old_p", "old_d"), [*product(range(4), repeat=2)])
def test_no_order_of_replacements_lets_old_and_new_meet(old_p: int, old_d: int) -> None:
    """Three replicas a side; so many of each are old yet."""
    prefill = (P1,) * old_p + (P2,) * (3 - old_p)
    decode = (D1,) * old_d + (D2,) * (3 - old_d)
    pools = Pools(prefill, decode)
    by_id = {each.id: each for each in (P1, P2, D1, D2)}
    seen = set()
    for number in range(100):
        pools.draw = number / 100
        choice = pools.pairing.writers(None, frozenset())
        if choice.problem:
            assert {old_p, 3 - old_d} in ({0}, {3}), "one pool is through, the other one has not begun"
            return
        for writer in [by_id[each] for each in choice.versions or {each.id for each in prefill}]:
            readers = pools.pairing.readers(writer, None)
            for reader in readers.versions or {each.id for each in decode}:
                assert version_misfit(writer, by_id[reader]) is None
                seen.add((writer.id, reader))
    both = {("p1", "d1")} if old_p and old_d else set()
    assert seen == both | ({("p2", "d2")} if old_p < 3 and old_d < 3 else set()), "and neither side starves"


def test_a_side_gets_as_much_as_its_smaller_half_can_do() -> None:
    assert Pools((P1, P2, P2, P2), (D1, D1, D1, D2)).drawn() == {"p1": 50, "p2": 50}
    assert Pools((P1, P1, P1, P2), (D1, D1, D1, D2)).drawn() == {"p1": 75, "p2": 25}


def test_two_prefill_modules_for_one_decode_module_share_by_their_replicas() -> None:
    """SUN: new weights on the prefill side only, trained for the decode module that stays."""
    new = version("p2", method="sun", partner="d1-weights")
    pools = Pools((P1, new, new, new), (D1,))
    assert pools.drawn() == {"p1": 25, "p2": 75}
    assert pools.pairing.readers(new, None).versions == {"d1"}
    assert pools.pairing.readers(P1, None).versions == {"d1"}


def test_new_decode_weights_for_a_prefill_module_that_stays() -> None:
    stays = version("p1", "d1", "d2")
    pools = Pools((stays,), (D1, D2))
    assert pools.pairing.writers(None, frozenset()).versions == {"p1"}
    assert pools.pairing.readers(stays, None).versions == {"d1", "d2"}


def test_a_version_whose_replicas_have_all_failed_the_request_comes_last() -> None:
    pools = Pools((P1, P2), (D1, D2))
    assert pools.drawn(frozenset({"p#1-p2"})) == {"p1": 100}
    assert pools.drawn(frozenset(pools.prefill)) == {"p1": 50, "p2": 50}


def test_a_ticket_in_the_air_whose_readers_have_gone_is_nobodys() -> None:
    pools = Pools((P1, P2), (D1, D2))
    assert pools.pairing.readers(P1, None).versions == {"d1"}
    pools.set((P2,), (D2,))
    choice = pools.pairing.readers(P1, None)
    assert choice.versions == frozenset()
    assert choice.problem.startswith(
        "no spec has deployed p1 (weights p1-weigh) together with d2 (weights d2"
    )


def test_a_ticket_of_a_prefill_module_that_has_gone_is_still_read() -> None:
    pools = Pools((P1, P2), (D1, D2))
    pools.set((P2,), (D1, D2))
    assert pools.pairing.readers(P1, None).versions == {"d1"}


def test_an_answer_that_has_begun_goes_on_with_the_versions_that_began_it() -> None:
    pools, pinned = Pools((P1, P2), (D1, D2)), Pinned(P1, D1)
    for number in range(10):
        pools.draw = number / 10
        assert pools.pairing.writers(pinned, frozenset()).versions == {"p1"}
    assert pools.pairing.readers(P1, pinned).versions == {"d1"}
    pools.set((P1, P2), (D2, D2))
    assert "as the answer began with them" in pools.pairing.writers(pinned, frozenset()).problem
    assert pools.pairing.readers(P1, pinned).problem
    pools.set((P2, P2), (D1, D2))
    assert pools.pairing.writers(pinned, frozenset()).problem, "nor without its writer"
    pools.set((P2,), (D2,))
    assert pools.pairing.writers(pinned, frozenset()).problem, "nor when the roll is over"


def test_an_answer_without_a_ticket_goes_on_with_the_version_that_began_it() -> None:
    """A prompt of one token, or of an ICaRus pool that went on by itself."""
    pools, pinned = Pools((P1,), (D1, D2)), Pinned(None, D1)
    assert pools.pairing.readers(None, None).versions == {"d1", "d2"}
    assert pools.pairing.readers(None, pinned).versions == {"d1"}
    pools.set((P1,), (D2,))
    assert pools.pairing.readers(None, pinned).problem


def test_the_same_weights_under_another_name_go_on_with_an_answer() -> None:
    moved = replace(D1, id="moved", source="d1-elsewhere", partners=("p1",))
    pools = Pools((P1,), (moved,))
    assert pools.pairing.writers(Pinned(P1, D1), frozenset()).versions == {"p1"}
    assert pools.pairing.readers(P1, Pinned(P1, D1)).versions == {"moved"}


def test_news_of_a_replica_count_at_once() -> None:
    pools = Pools((P1,), (version("d2"),))
    assert pools.pairing.writers(None, frozenset()).problem
    pools.roster.observe("d#0-d2", version("d2", "p1"))
    assert pools.pairing.writers(None, frozenset()).versions == {"p1"}


def test_a_spec_that_wants_an_untrained_pair_gets_it() -> None:
    writer = version("p1", "d1", method="sun", partner="another")
    assert Pools((writer,), (D1,)).pairing.writers(None, frozenset()).problem
    assert Pools((writer,), (D1,), untrained_pair=True).pairing.writers(None, frozenset()).versions == {"p1"}


def test_an_adapter_without_a_card_stays_on_the_weights_of_its_spec() -> None:
    """`p1` is what this router's spec says; replicas of `p2` are another spec's, with adapters of its own."""
    pools = Pools((P1, P2), (replace(D1, partners=("p1", "p2")),), prefill_adapter=Adapter("a", "/a"))
    assert pools.drawn() == {"p1": 100}
    pools.set((P2,), (D1,))
    assert "its spec lists it on p1" in pools.pairing.writers(None, frozenset()).problem


def test_no_decode_replica_at_all_is_not_a_question_of_versions() -> None:
    pools = Pools((P1, P2), ())
    assert pools.drawn() == {"p1": 50, "p2": 50}
    assert pools.pairing.readers(P1, None) is NOBODY
    assert Pools((), (D1,)).pairing.writers(None, frozenset()) is NOBODY

import random

from simulator.engine.kv_space import KvSpace

BLOCK = 10


def _cached(space: KvSpace, names: list[int]) -> None:
    """These blocks are there, and nobody holds them."""
    space.claim(len(names) * BLOCK)
    space.publish(names)
    space.release(names)


def test_two_who_hold_the_same_blocks_take_their_room_once() -> None:
    space = KvSpace(100, BLOCK)
    space.claim(20)
    assert space.publish([1, 2]) == [1, 2]
    space.hold([1, 2])
    assert (space.in_use, space.free) == (20, 80)
    space.release([1, 2])
    assert space.in_use == 20
    space.release([1, 2])
    assert (space.in_use, space.free, space.cached_blocks) == (0, 100, 2)


def test_who_computed_what_is_already_there_gives_its_copy_back() -> None:
    space = KvSpace(100, BLOCK)
    space.claim(40)
    assert space.publish([1, 2]) == [1, 2]
    assert space.publish([1, 2]) == []
    assert space.in_use == 20


def test_cached_blocks_match_from_the_first_one_on() -> None:
    space = KvSpace(100, BLOCK)
    _cached(space, [1, 2, 4])
    space.hold([4])
    assert [space.matched(names) for names in ([1, 2, 3, 4], [3, 1], [1, 2, 4], [])] == [2, 0, 3, 0]


def test_what_is_only_cached_is_free_until_somebody_takes_it() -> None:
    space = KvSpace(100, BLOCK)
    _cached(space, [1, 2, 3])
    assert (space.free, space.idle_in([1, 2, 9])) == (100, 20)
    space.hold([1, 2])
    assert (space.free, space.idle_in([1, 2, 3])) == (80, 10)


def test_the_least_recently_used_goes_first_and_of_a_chain_its_end() -> None:
    space = KvSpace(60, BLOCK)
    _cached(space, [1, 2])
    _cached(space, [3, 4])
    space.hold([1, 2])
    space.release([1, 2])
    space.claim(25)
    assert space.take_dropped() == [4]
    space.claim(20)
    assert space.take_dropped() == [3, 2]
    assert space.take_dropped() == []
    assert space.matched([1]) == 1


def test_blocks_that_are_held_are_never_evicted() -> None:
    space = KvSpace(40, BLOCK)
    _cached(space, [1, 2, 3])
    space.hold([1])
    space.claim(70)
    assert sorted(space.take_dropped()) == [2, 3]
    assert (space.matched([1]), space.free) == (1, -40)


def test_publishing_makes_room_too() -> None:
    space = KvSpace(30, BLOCK)
    _cached(space, [1, 2])
    space.claim(10)
    assert space.take_dropped() == []
    space.publish([3])
    space.claim(1)
    assert space.take_dropped() == [2]


def test_random_use_never_overfills_and_ends_empty() -> None:
    for seed in range(50):
        draw, space = random.Random(seed), KvSpace(300, BLOCK)
        inside: list[tuple[list[int], int]] = []
        present: set[int] = set()
        for _ in range(300):
            chain = [100 * draw.randrange(5) + place for place in range(draw.randrange(1, 8))]
            matched = space.matched(chain)
            need = (len(chain) - matched) * BLOCK + space.idle_in(chain[:matched])
            if draw.random() < 0.5 and need + 5 <= space.free:
                space.hold(chain[:matched])
                space.claim((len(chain) - matched) * BLOCK + 5)
                added = space.publish(chain[matched:])
                # Dropped before added: who makes room for a block may be that very block, unmatched.
                present = present.difference(space.take_dropped()).union(added)
                inside.append((chain, 5))
            elif inside:
                names, private = inside.pop(draw.randrange(len(inside)))
                space.give_back(private)
                space.release(names)
            present.difference_update(space.take_dropped())
            held = {name for names, _ in inside for name in names}
            assert held <= present
            assert space.cached_blocks == len(present)
            assert space.in_use == 5 * len(inside) + BLOCK * len(held)
            assert 5 * len(inside) + BLOCK * len(present) <= 300
        for names, private in inside:
            space.give_back(private)
            space.release(names)
        assert space.in_use == 0

from dataclasses import replace

from heliostat.wire import Version
from router.roster import MAX_KNOWN, Roster

OLD, NEW = Version("old", partners=("a",)), Version("new")
POOL = ("1", "2", "3")


def roster(**versions: Version) -> Roster:
    made = Roster()
    for replica, version in versions.items():
        made.observe(replica.removeprefix("r"), version)
    return made


def test_replicas_are_grouped_by_version_and_share_what_they_were_told() -> None:
    known = roster(r1=OLD, r2=NEW, r3=replace(OLD, partners=("b", "a")))
    groups = known.groups(POOL)
    assert {name: group.replicas for name, group in groups.items()} == {"old": ("1", "3"), "new": ("2",)}
    assert groups["old"].version.partners == ("a", "b")


def test_only_news_count_as_changes() -> None:
    known = roster(r1=OLD)
    before = known.changes
    known.observe("1", OLD)
    known.observe("2", Version())
    assert (known.changes, known.version("2")) == (before, None)
    known.observe("1", replace(OLD, partners=("a", "b")))
    assert known.changes == before + 1


def test_a_leg_may_have_the_replicas_of_its_versions_and_no_stranger() -> None:
    known = roster(r1=OLD, r2=NEW)
    assert known.select(POOL, frozenset({"new"})) == (1,)
    assert known.select(POOL, frozenset({"gone"})) == ()
    assert known.select(POOL, None) == (0, 1), "whoever has said nothing may be of a new version"
    assert known.select(POOL[:2], None) is None, "all of them"
    assert known.select(POOL[:2], frozenset({"old", "new"})) is None
    assert Roster().select(POOL, None) is None, "nobody says anything here"
    assert not known.knows(POOL) and known.knows(POOL[:2])


def test_it_forgets_at_last() -> None:
    known = Roster()
    for number in range(MAX_KNOWN + 1):
        known.observe(str(number), OLD)
    assert known.version("0") is None
    assert known.version(str(MAX_KNOWN)) == OLD

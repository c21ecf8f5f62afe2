"""A replica says who it is, learns what it was deployed with, and refuses what is not for it."""

from dataclasses import replace

import pytest

from deployments.identity import MAX_PARTNERS, Identity
from heliostat.errors import HandoffFailedError, PrefillFailedError
from heliostat.wire import Adapter, DecodeRequest, Load, PrefillRequest, PrefillResult, Ticket, Version

WRITER = Version("w", "written", "/w", "w-kv", "dtype=bfloat16")
READER = Version("r", "reading", "/r", "r-kv", "dtype=bfloat16")
TICKET = Ticket("t", "shm", "there", "w-kv", "p", 2, 1, 64, "p0", 0.0)


def asked(versions: frozenset[str] | None = None, writer: Version | None = WRITER) -> DecodeRequest:
    return DecodeRequest("1", "m", (1, 2, 3), replace(TICKET, writer=writer), b"", versions=versions)


def test_a_replica_learns_what_its_own_spec_has_on_the_other_side() -> None:
    identity = Identity("decode-d#1", READER)
    assert identity.told("/r", ("/w",)).version.partners == ("/w",)
    assert identity.told("/r", ("/w", "/w2")).version.partners == ("/w", "/w2")
    assert identity.told("/r2", ("/w3",)).version.partners == ("/w", "/w2"), "another spec's weights"
    assert identity.told("/r", ()).replica == "decode-d#1"
    many = tuple(f"/{number}" for number in range(MAX_PARTNERS))
    assert identity.told("/r", many).version.partners == many


def test_a_ticket_says_who_wrote_its_kv() -> None:
    identity = Identity("prefill-p#1", WRITER)
    identity.told("/w", ("/r",))
    result = PrefillResult(TICKET, Load("p", 0, 0, 0, 0.0, 1), 0, 0.0)
    signed = identity.sign(result, PrefillRequest("1", "m", (1, 2))).ticket
    assert signed == replace(TICKET, writer=replace(WRITER, partners=("/r",)))
    adapted = identity.sign(result, PrefillRequest("1", "m", (1, 2), adapter=Adapter("a", "/a"))).ticket
    assert adapted.writer is not None and adapted.writer.adapter == "a"


def test_kv_of_a_module_that_is_not_deployed_with_this_one_is_refused() -> None:
    identity = Identity("decode-d#1", READER)
    with pytest.raises(HandoffFailedError, match=r"decode-d#1: no spec has deployed /w \(weights written\)"):
        identity.check_decode(asked())
    identity.told("/r", ("/w",))
    identity.check_decode(asked())
    identity.check_decode(asked(writer=None))
    other = replace(WRITER, contract="dtype=float32")
    with pytest.raises(HandoffFailedError, match="dtype is float32 in the one and bfloat16 in the other"):
        identity.check_decode(asked(writer=other))


def test_a_request_for_another_version_is_refused() -> None:
    identity = Identity("decode-d#1", replace(READER, partners=("/w",)))
    identity.check_decode(asked(frozenset({"r"})))
    with pytest.raises(HandoffFailedError, match="runs another version"):
        identity.check_decode(asked(frozenset({"r2"})))
    with pytest.raises(PrefillFailedError, match="runs another version"):
        identity.check_prefill(PrefillRequest("1", "m", (1,), versions=frozenset({"w"})))
    identity.check_prefill(PrefillRequest("1", "m", (1,), versions=frozenset({"r"})))

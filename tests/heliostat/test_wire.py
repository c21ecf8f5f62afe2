"""What a KV domain is called once an adapter writes in it."""

from heliostat.wire import Adapter, adapted_domain


def test_an_adapter_has_a_domain_of_its_own_by_its_content() -> None:
    domains = [
        adapted_domain("weights", adapter) for adapter in (None, Adapter("1", "/a"), Adapter("2", "/a"))
    ]
    assert len(set(domains)) == 3
    assert domains[0] == "weights"
    assert adapted_domain("weights", Adapter("1", "/elsewhere")) == domains[1]


def test_the_same_adapter_on_other_weights_writes_other_kv() -> None:
    assert adapted_domain("one", Adapter("1", "/a")) != adapted_domain("two", Adapter("1", "/a"))


def test_an_unknown_domain_stays_unknown_whatever_the_adapter() -> None:
    assert adapted_domain("", Adapter("1", "/a")) == ""

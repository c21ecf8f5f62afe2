"""Which versions may meet while pools roll: contract, cards, and what specs have deployed together."""

from dataclasses import replace

import pytest

from heliostat.wire import Adapter, Version
from kvtransfer.fit import adapter_version_misfit, same_answers, version_misfit, with_adapter

SHARED = {"num_layers": "2", "dtype": "bfloat16", "engine": "vllm 0.32.0"}


def contract(**values: str) -> str:
    return "\n".join(f"{name}={value}" for name, value in (SHARED | values).items())


CONTRACT = contract()


def version(name: str, **fields: object) -> Version:
    return replace(Version(name, f"{name}-weights", f"/{name}", f"{name}-kv", CONTRACT), **fields)


WRITER, READER = version("write"), version("reads", partners=("/write",))


def test_modules_without_cards_fit_when_a_spec_has_deployed_them_together() -> None:
    assert version_misfit(WRITER, READER) is None
    assert version_misfit(replace(WRITER, partners=("/reads",)), version("reads")) is None, (
        "either side knows"
    )


def test_modules_without_cards_that_only_met_because_pools_roll_do_not_fit() -> None:
    assert version_misfit(version("newer"), READER) == (
        "no spec has deployed /newer (weights newer-we) together with /reads (weights reads-we), "
        "and no card speaks for the pair"
    )


def test_a_card_that_names_the_other_side_speaks_for_the_pair() -> None:
    trained = version("sun", method="sun", partner="reads-weights")
    assert version_misfit(trained, version("reads")) is None
    assert (
        version_misfit(version("write"), version("d", method="prefillshare", partner="write-weights")) is None
    )


def test_a_card_that_names_another_one_speaks_against_it_whatever_was_deployed() -> None:
    trained = version("sun", method="sun", partner="older-weights", partners=("/reads",))
    problem = version_misfit(trained, READER)
    assert problem is not None
    assert (
        "trained by `sun` against weights older-we, but /reads (weights reads-we) holds reads-we" in problem
    )
    assert version_misfit(trained, READER, untrained_pair=True) is None, "the spec says so"
    assert version_misfit(replace(trained, partners=()), version("reads"), untrained_pair=True) is not None


def test_one_module_on_both_sides_fits_itself() -> None:
    assert version_misfit(WRITER, replace(WRITER, id="again", source="/elsewhere")) is None
    full = replace(WRITER, method="full")
    assert version_misfit(full, full) is None
    assert version_misfit(full, READER) is not None


@pytest.mark.parametrize(
    ("field", "ours"), [("num_layers", "4"), ("dtype", "float16"), ("engine", "vllm 0.33.0")]
)
def test_the_first_difference_in_the_contract_is_named(field: str, ours: str) -> None:
    problem = version_misfit(WRITER, replace(READER, contract=contract(**{field: ours})))
    assert problem is not None
    assert f"{field} is {SHARED[field]} in the one and {ours} in the other" in problem


def test_what_only_one_side_knows_is_a_difference() -> None:
    problem = version_misfit(WRITER, replace(READER, contract=contract(fast="yes")))
    assert problem is not None and "fast is unknown in the one and yes in the other" in problem


def test_an_icarus_pool_reads_only_what_its_own_weights_wrote() -> None:
    base = version("base", icarus=True, partners=("/write",))
    assert version_misfit(replace(base, icarus=False), base) is None
    assert version_misfit(WRITER, base) == (
        "/base (weights base-wei) reads only what its own weights wrote, not KV of /write (weights write-we)"
    )


# Adapters.

SUN = Adapter("sunsunsunsun", "/a", method="sun", partner="reads-weights", base="write-weights")


def test_what_counts_of_an_adapted_module_is_the_adapter_s_card() -> None:
    adapted = with_adapter(WRITER, SUN)
    assert adapted.domain == "write-kv+sunsunsunsun"
    assert version_misfit(adapted, version("reads")) is None
    assert version_misfit(adapted, version("newer", partners=("/write",))) is not None
    assert with_adapter(WRITER, None) is WRITER


def test_an_icarus_base_stays_what_it_is_whatever_adapter_reads() -> None:
    base = version("base", icarus=True)
    assert with_adapter(base, SUN) is base


def test_an_adapter_belongs_to_the_base_on_its_card_and_without_one_to_its_spec_s() -> None:
    assert adapter_version_misfit(None, WRITER, "") is None
    assert adapter_version_misfit(SUN, WRITER, "/another spec's") is None
    assert adapter_version_misfit(SUN, READER, "/reads") == (
        "the adapter sunsunsu was made from another base than /reads (weights reads-we)"
    )
    plain = Adapter("plainplain", "/p")
    assert adapter_version_misfit(plain, WRITER, "/write") is None
    assert adapter_version_misfit(plain, WRITER, "/newer") == (
        "the adapter plainpla has no card, and its spec lists it on /newer"
    )


def test_an_answer_goes_on_with_the_same_weights_in_the_same_form() -> None:
    assert same_answers(WRITER, replace(WRITER, id="x", source="/moved", partners=("/y",)))
    assert not same_answers(WRITER, READER)
    assert not same_answers(WRITER, replace(WRITER, contract=contract(dtype="float16")))

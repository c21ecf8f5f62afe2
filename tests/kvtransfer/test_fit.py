"""Which modules belong together, by what their cards say of how they were trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.wire import Role
from kvtransfer.adapter import AdapterModule
from kvtransfer.card import Method, ModuleCard
from kvtransfer.contract import Contract, Module
from kvtransfer.fit import Side, adapter_misfit, module_misfit, pair_misfit

BASE = Module(Path("base"), Contract("Llama", 2, 2, 16, "{}", 128, "tokens"), "base-weights")
SMALL = replace(BASE, path=Path("small"), weights="smal-weights", quantization="gptq")
TUNED = replace(BASE, path=Path("tuned"), weights="tune-weights")


def card(method: Method, role: str = "both", partner: str = "", kind: str = "weights") -> ModuleCard:
    return ModuleCard.model_validate(
        {
            "method": method,
            "role": role,
            "kind": kind,
            "base": BASE.weights,
            "partner": partner,
            "tokenizer": BASE.contract.tokenizer,
        }
    )


def adapter(card: ModuleCard | None = None, *targets: str, digest: str = "a") -> AdapterModule:
    return AdapterModule(Path("a"), digest, 8, frozenset(targets or ("q_proj",)), card)


# One module and the family.


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        (
            {"base": "alienalien"},
            "it was made from another base (weights alienali, family.base has base-wei); "
            "make it again from this base",
        ),
        (
            {"tokenizer": "other"},
            "it was made with another tokenizer than family.base; make it again from this base",
        ),
    ],
)
def test_a_module_is_of_the_base_and_the_tokenizer_on_its_card(
    change: dict[str, str], problem: str | None
) -> None:
    assert module_misfit(card(Method.SUN).model_copy(update=change), BASE) == problem


def test_a_module_without_a_card_is_taken_as_it_is() -> None:
    assert module_misfit(None, BASE) is None
    assert adapter_misfit(adapter(), BASE, Role.DECODE, icarus=False) is None
    assert pair_misfit(Side("prefill.p", TUNED, None), Side("decode.d", BASE, None)) is None


# An adapter and its pool.

READER = card(Method.ICARUS, "decode", BASE.weights, "adapter")
LISTED = {
    "icarus in its pool": (READER, ("q_proj", "up_proj"), Role.DECODE, True, None),
    "icarus that changes keys": (
        READER,
        ("v_proj", "q_proj", "k_proj"),
        Role.DECODE,
        True,
        "it changes k_proj, v_proj, but in an ICaRus pool the base alone writes keys and values; "
        "train it with `heliostat finetune icarus`",
    ),
    "no card, and changes keys": (None, ("qkv_proj",), Role.DECODE, True, "it changes qkv_proj, but in an"),
    "no card, changes keys, plain pool": (None, ("k_proj",), Role.DECODE, False, None),
    "icarus in a plain pool": (
        READER,
        ("q_proj",),
        Role.DECODE,
        False,
        "it is an ICaRus adapter, which reads what the base writes; say `icarus: true` in its pool",
    ),
    "another method in an icarus pool": (
        card(Method.PREFILL_SHARE, "decode", BASE.weights, "adapter"),
        ("q_proj",),
        Role.DECODE,
        True,
        "it was trained by `prefillshare`, not by `icarus`, and would read KV that it does not know",
    ),
    "decode in a prefill pool": (
        card(Method.PREFILL_SHARE, "decode", BASE.weights, "adapter"),
        ("q_proj",),
        Role.PREFILL,
        False,
        "it was trained for the decode side; list it in a decode pool",
    ),
    "prefill in a decode pool": (
        card(Method.SUN, "prefill", BASE.weights, "adapter"),
        ("q_proj",),
        Role.DECODE,
        False,
        "it was trained for the prefill side; list it in a prefill pool",
    ),
    "both roles": (card(Method.FULL, kind="adapter"), ("q_proj",), Role.PREFILL, False, None),
    "another base": (
        card(Method.SUN, "prefill", "x", "adapter").model_copy(update={"base": "alienalien"}),
        ("q_proj",),
        Role.PREFILL,
        False,
        "it was made from another base (weights alienali, this pool has base-wei",
    ),
}


@pytest.mark.parametrize(("card", "targets", "role", "icarus", "problem"), LISTED.values(), ids=LISTED.keys())
def test_an_adapter_serves_where_it_was_trained_to(
    card: ModuleCard | None, targets: tuple[str, ...], role: Role, icarus: bool, problem: str | None
) -> None:
    found = adapter_misfit(adapter(card, *targets), BASE, role, icarus)
    assert found == problem or (found and problem and found.startswith(problem))


# A pair.


def side(name: str, module: Module, card: ModuleCard | None = None) -> Side:
    return Side(name, module, card)


P_BASE, D_BASE = side("prefill.base", BASE), side("decode.base", BASE)
D_SMALL = side("decode.small", SMALL, card(Method.QUANTIZED))
SUN = side("prefill.sun", TUNED, card(Method.SUN, "prefill", BASE.weights))
QSUN = side("prefill.qsun", TUNED, card(Method.QSUN, "prefill", SMALL.weights))
SHARE = side("decode.share", TUNED, card(Method.PREFILL_SHARE, "decode", BASE.weights))
FULL_P, FULL_D = (side(f"{role}.full", TUNED, card(Method.FULL)) for role in ("prefill", "decode"))
ICARUS = Side("decode.base with x", BASE, None, adapter(READER))
SUN_LORA = Side("prefill.base with s", BASE, None, adapter(card(Method.SUN, "prefill", BASE.weights)))
PAIRS = {
    "sun": (SUN, D_BASE, None),
    "qsun": (QSUN, D_SMALL, None),
    "prefill share": (P_BASE, SHARE, None),
    "icarus": (P_BASE, ICARUS, None),
    "fine-tuned in both roles": (FULL_P, FULL_D, None),
    "a sun adapter": (SUN_LORA, D_BASE, None),
    "sun on fewer bits": (
        SUN,
        D_SMALL,
        "prefill.sun was trained by `sun` against weights base-wei, but decode.small holds smal-wei; "
        "train it against this decode module with `heliostat finetune qsun`",
    ),
    "qsun on the base": (
        QSUN,
        D_BASE,
        "prefill.qsun was trained by `qsun` against weights smal-wei, but decode.base holds base-wei; "
        "pair it with what it was trained against, or train it again",
    ),
    "prefill share over another writer": (
        SUN,
        SHARE,
        "prefill.sun was trained by `sun` against weights base-wei, but decode.share holds tune-wei; "
        "pair it with what it was trained against, or train it again",
    ),
    "naive, on the prefill side": (
        FULL_P,
        D_BASE,
        "prefill.full was fine-tuned for both roles: pair it with itself, not decode.base",
    ),
    "naive, on the decode side": (
        P_BASE,
        FULL_D,
        "decode.full was fine-tuned for both roles: pair it with itself, not prefill.base",
    ),
    "sun against an adapter": (
        SUN,
        replace(ICARUS, adapter=adapter()),
        "prefill.sun was trained against plain weights, not against decode.base with x",
    ),
}


@pytest.mark.parametrize(("writer", "reader", "problem"), PAIRS.values(), ids=PAIRS.keys())
def test_a_pair_is_what_was_trained_for_each_other(writer: Side, reader: Side, problem: str | None) -> None:
    assert pair_misfit(writer, reader) == problem


@pytest.mark.parametrize(("other", "fits"), [("a", True), ("b", False)])
def test_an_adapter_tuned_for_both_roles_is_paired_with_itself(other: str, fits: bool) -> None:
    tuned = card(Method.FULL, kind="adapter")
    writer = Side("prefill.base with a", BASE, None, adapter(tuned, digest="a"))
    reader = Side("decode.base with b", BASE, None, adapter(tuned, digest=other))
    assert (pair_misfit(writer, reader) is None) == fits


def test_the_card_of_an_adapter_speaks_for_its_side() -> None:
    assert replace(SHARE, adapter=adapter(READER)).trained == READER
    assert replace(SHARE, adapter=adapter()).trained is None
    assert SHARE.trained == SHARE.card

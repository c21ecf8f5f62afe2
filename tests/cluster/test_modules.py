"""Modules that do not fit a spec: every refusal is a sentence with its place and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from cluster.plan import Sharing, make_plan
from heliostat.errors import SpecError
from heliostat.spec import Spec
from kvtransfer.card import Method

if TYPE_CHECKING:  # tests cannot import a conftest in importlib mode
    from tests.cluster.conftest import Family, Pools


def refused(spec: Spec) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        make_plan(spec)
    return caught.value.findings


def pair(family: Family, prefill: str, decode: str, **more: object) -> Spec:
    """A spec of one model over one pool for each role."""
    model = {"prefill": "p", "decode": "d"} | more
    return family.spec({"p": {"weights": prefill}}, {"d": {"weights": decode}}, {"m": model})


def with_adapter(family: Family, folder: str, role: str = "decode", **pool: object) -> Spec:
    """The base on both sides, and one model that reads or writes with the adapter."""
    pools: dict[str, Pools] = {"prefill": {"p": {}}, "decode": {"d": {}}}
    pools[role][role[0]] = {"adapters": {"a": folder}} | pool
    model = {"prefill": "p", "decode": "d", f"{role}_adapter": "a"}
    return family.spec(pools["prefill"], pools["decode"], {"m": model})


# Modules of another family.


def test_a_module_of_another_base_is_named_with_both(family: Family) -> None:
    card = family.card(Method.SUN, "prefill", family.base).model_copy(update={"base": "alienalien"})
    assert refused(pair(family, family.checkpoint("sun", card), family.base)) == (
        f"prefill.p: it was made from another base (weights alienali, family.base has "
        f"{family.digest(family.base)[:8]}); make it again from this base",
    )


def test_a_module_made_with_another_tokenizer_is_named(family: Family) -> None:
    card = family.card(Method.PREFILL_SHARE, "decode", family.base).model_copy(update={"tokenizer": "x"})
    assert refused(pair(family, family.base, family.checkpoint("share", card))) == (
        "decode.d: it was made with another tokenizer than family.base; make it again from this base",
    )


def test_a_module_that_holds_another_tokenizer_is_named(family: Family) -> None:
    words = family.checkpoint("words")
    (Path(words) / "tokenizer.json").write_text('{"other": 1}')
    (finding,) = refused(pair(family, words, family.base))
    assert finding.startswith("prefill.p: family.base and prefill.p cannot exchange KV caches: tokenizer is ")


def test_a_broken_card_is_named_with_its_pool(family: Family) -> None:
    broken = family.checkpoint("broken")
    (Path(broken) / "heliostat.json").write_text("{}")
    (finding,) = refused(pair(family, broken, family.base))
    assert finding.startswith(f"prefill.p: {broken}/heliostat.json: method: Field required")


# Adapters and their pools.


def test_an_adapter_that_cannot_be_read_is_named_with_its_file(family: Family) -> None:
    config = Path(family.adapter("ia3")) / "adapter_config.json"
    config.write_text('{"peft_type": "IA3"}')
    gone = family.root / "gone"
    spec = family.spec(
        {"p": {"adapters": {"gone": str(gone)}}},
        {"d": {"adapters": {"ia3": str(config.parent)}}},
        {"m": {"prefill": "p", "decode": "d", "prefill_adapter": "gone", "decode_adapter": "ia3"}},
    )
    assert refused(spec) == (
        f"prefill.p.adapters.gone: {gone}/adapter_config.json: missing; is this a LoRA adapter "
        "as PEFT writes it?",
        f"decode.d.adapters.ia3: {config}: peft_type is 'IA3'; only LORA can be served",
    )


def test_an_adapter_larger_than_its_room_is_named(family: Family) -> None:
    big = family.adapter("big", rank=64)
    assert refused(with_adapter(family, big, lora={"rank": 16})) == (
        "decode.d.adapters.a: its rank is 64, lora.rank is 16; raise lora.rank",
    )
    for room in ({"rank": 64}, {"slots": 2}):
        assert make_plan(with_adapter(family, big, lora=room))


ICARUS = (Method.ICARUS, "decode")
MISPLACED = {
    "keys and values": (
        (*ICARUS, ("q_proj", "v_proj", "k_proj"), "decode", True),
        "decode.d.adapters.a: it changes k_proj, v_proj, but in an ICaRus pool the base alone writes "
        "keys and values; train it with `heliostat finetune icarus`",
    ),
    "icarus in a plain pool": (
        (*ICARUS, ("q_proj",), "decode", False),
        "decode.d.adapters.a: it is an ICaRus adapter, which reads what the base writes; say `icarus: true` "
        "in its pool",
    ),
    "another one in an icarus pool": (
        (Method.PREFILL_SHARE, "decode", ("q_proj",), "decode", True),
        "decode.d.adapters.a: it was trained by `prefillshare`, not by `icarus`, and would read KV that it "
        "does not know",
    ),
    "a reader among writers": (
        (Method.PREFILL_SHARE, "decode", ("q_proj",), "prefill", False),
        "prefill.p.adapters.a: it was trained for the decode side; list it in a decode pool",
    ),
    "a writer among readers": (
        (Method.SUN, "prefill", ("q_proj",), "decode", False),
        "decode.d.adapters.a: it was trained for the prefill side; list it in a prefill pool",
    ),
}


@pytest.mark.parametrize(("case", "finding"), MISPLACED.values(), ids=MISPLACED.keys())
def test_an_adapter_in_the_wrong_pool_is_named(
    family: Family,
    case: tuple[Method, Literal["prefill", "decode"], tuple[str, ...], str, bool],
    finding: str,
) -> None:
    method, trained_for, targets, role, icarus = case
    card = family.card(method, trained_for, family.base, "adapter")
    spec = with_adapter(family, family.adapter("a", card, targets), role, icarus=icarus)
    assert refused(spec) == (finding,)


def test_an_adapter_of_another_base_is_named(family: Family) -> None:
    card = family.card(Method.SUN, "prefill", family.base, "adapter")
    alien = family.adapter("alien", card.model_copy(update={"base": "alienalien"}))
    (finding,) = refused(with_adapter(family, alien, "prefill"))
    assert finding.startswith("prefill.p.adapters.a: it was made from another base (weights alienali, ")


# ICaRus pools.


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_icarus_runs_on_one_gpu(family: Family, gpus: int) -> None:
    spec = family.spec(
        {"p": {}}, {"d": {"icarus": True, "gpus": gpus}}, {"m": {"prefill": "p", "decode": "d"}}
    )
    if gpus < 2:
        assert make_plan(spec)
    else:
        finding = "decode.d: ICaRus runs on one GPU per replica; say `gpus: 1` and more replicas"
        assert refused(spec) == (finding,)


def test_icarus_is_for_decode_pools(family: Family) -> None:
    spec = family.spec({"p": {"icarus": True}}, {"d": {}}, {"m": {"prefill": "p", "decode": "d"}})
    assert refused(spec) == (
        "prefill.p: `icarus` is for decode pools; its prefill pool is the base as it is",
    )


@pytest.mark.parametrize("untrained_pair", [False, True])
@pytest.mark.parametrize("by_adapter", [False, True])
def test_whoever_prefills_for_icarus_is_its_base(
    family: Family, by_adapter: bool, untrained_pair: bool
) -> None:
    other = family.checkpoint("other")
    prefill: Pools = {"p": {"adapters": {"w": family.adapter("w")}} if by_adapter else {"weights": other}}
    model: dict[str, object] = {"prefill": "p", "decode": "d", "untrained_pair": untrained_pair}
    if by_adapter:
        model["prefill_adapter"] = "w"
    place = "prefill.p with w" if by_adapter else "prefill.p"
    assert refused(family.spec(prefill, {"d": {"icarus": True}}, {"m": model})) == (
        f"models.m: {place} is not the base of decode.d, which writes all KV; name a pool of those weights",
    )


def test_adapters_need_a_transport_of_ours(family: Family) -> None:
    spec = family.spec(
        {"p": {}},
        {"d": {"lora": {}}},
        {"m": {"prefill": "p", "decode": "d"}},
        transfer={"connector": {"name": "NixlConnector"}},
    )
    assert refused(spec) == ("decode.d: adapters need a transport of ours; take `transfer.connector` out",)


# Pairs that were not trained for each other.


def naive(family: Family) -> tuple[str, str]:
    return family.checkpoint("tuned", family.card(Method.FULL)), family.base


def sun_on_few(family: Family) -> tuple[str, str]:
    few = family.checkpoint("few", family.card(Method.QUANTIZED))
    return family.checkpoint("sun", family.card(Method.SUN, "prefill", family.base)), few


UNTRAINED = {
    naive: "models.m: prefill.p was fine-tuned for both roles: pair it with itself, not decode.d",
    sun_on_few: "models.m: prefill.p was trained by `sun` against weights BASE, but decode.d holds FEW; "
    "train it against this decode module with `heliostat finetune qsun`",
}


@pytest.mark.parametrize("modules", UNTRAINED)
def test_a_pair_is_refused_unless_the_spec_says_that_it_is_untrained(
    family: Family, modules: Callable[[Family], tuple[str, str]]
) -> None:
    prefill, decode = modules(family)
    finding = UNTRAINED[modules].replace("BASE", family.digest(family.base)[:8])
    finding = finding.replace("FEW", family.digest(decode)[:8])
    assert refused(pair(family, prefill, decode)) == (f"{finding} (or say `untrained_pair: true`)",)
    assert make_plan(pair(family, prefill, decode, untrained_pair=True)).models[0].shares == (
        Sharing.DEDICATED,
    )


def test_the_finding_on_the_page(family: Family, shown: str) -> None:
    """A SUN adapter of the plain base, in front of a quantized decode module."""
    small = family.checkpoint("small", family.card(Method.QUANTIZED, "decode"))
    home = family.adapter("home", family.card(Method.SUN, "prefill", family.base, "adapter"))
    model = {"prefill": "tuned", "decode": "small", "prefill_adapter": "home"}
    spec = family.spec(
        {"tuned": {"adapters": {"home": home}}}, {"small": {"weights": small}}, {"home": model}
    )
    (finding,) = refused(spec)
    known = {"1f0c9a7e": family.digest(family.base)[:8], "5b21d0c4": family.digest(small)[:8]}
    for on_page, here in known.items():
        shown = shown.replace(on_page, here)
    assert " ".join(shown.split()) == f"cluster.yaml: {finding}"

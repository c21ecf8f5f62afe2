"""What a plan says that models share, by what is in their pools: weights, adapters, bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.plan import Sharing, make_plan
from heliostat.spec import Spec
from kvtransfer.card import Method

if TYPE_CHECKING:  # tests cannot import a conftest in importlib mode
    from tests.cluster.conftest import Family, Pools


def mixed_spec(family: Family) -> Spec:
    """Every way to share in one cluster."""
    few = family.checkpoint("few", family.card(Method.QUANTIZED))
    sun = {
        name: family.checkpoint(name, family.card(Method.SUN, "prefill", family.base))
        for name in ("sun-1", "sun-2")
    }
    qsun = {
        name: family.checkpoint(name, family.card(Method.QSUN, "prefill", few))
        for name in ("qsun-1", "qsun-2")
    }
    share = family.card(Method.PREFILL_SHARE, "decode", family.base)
    reader = family.card(Method.ICARUS, "decode", family.base, "adapter")
    own = family.checkpoint("own", family.card(Method.FULL))
    return family.spec(
        {name: {"weights": folder} for name, folder in (sun | qsun | {"own": own}).items()} | {"base": {}},
        {
            "base": {},
            "few": {"weights": few},
            "share-1": {"weights": family.checkpoint("share-1", share)},
            "shares": {
                "adapters": {
                    "share-2": family.adapter("share-2", share.model_copy(update={"kind": "adapter"}))
                }
            },
            "readers": {
                "adapters": {name: family.adapter(name, reader) for name in ("reader-1", "reader-2")},
                "icarus": True,
            },
            "own": {"weights": own},
        },
        {name: {"prefill": name, "decode": "base"} for name in sun}
        | {name: {"prefill": name, "decode": "few"} for name in qsun}
        | {
            "share-1": {"prefill": "base", "decode": "share-1"},
            "share-2": {"prefill": "base", "decode": "shares", "decode_adapter": "share-2"},
            "reader-1": {"prefill": "base", "decode": "readers", "decode_adapter": "reader-1"},
            "reader-2": {"prefill": "base", "decode": "readers", "decode_adapter": "reader-2"},
            "own": {"prefill": "own", "decode": "own"},
        },
    )


def test_every_way_to_share_fits_in_one_spec(family: Family) -> None:
    plan = make_plan(mixed_spec(family))
    assert {model.name: model.shares for model in plan.models} == {
        "sun-1": (Sharing.SUN,),
        "sun-2": (Sharing.SUN,),
        "qsun-1": (Sharing.QSUN,),
        "qsun-2": (Sharing.QSUN,),
        "share-1": (Sharing.PREFILL_SHARE,),
        "share-2": (Sharing.PREFILL_SHARE,),
        "reader-1": (Sharing.ICARUS,),
        "reader-2": (Sharing.ICARUS,),
        "own": (Sharing.DEDICATED,),
    }
    (readers,) = [pool for pool in plan.pools if pool.name == "readers"]
    assert (readers.adapters, readers.models) == (("reader-1", "reader-2"), ("reader-1", "reader-2"))


def test_adapters_tell_models_on_the_same_weights_apart(family: Family) -> None:
    writers = {name: family.adapter(name) for name in ("w-1", "w-2")}
    models = {name: {"prefill": "p", "decode": "d", "prefill_adapter": name} for name in writers}
    plan = make_plan(family.spec({"p": {"adapters": writers}}, {"d": {}}, models))
    assert [model.shares for model in plan.models] == [(Sharing.SUN,)] * 2


def test_equal_adapters_under_two_names_are_one_module(family: Family) -> None:
    writers = {name: family.adapter(name) for name in ("w-1", "w-2")}
    for folder in writers.values():
        (Path(folder) / "adapter_model.safetensors").write_text("same")
    models = {name: {"prefill": "p", "decode": "d", "prefill_adapter": name} for name in writers}
    plan = make_plan(family.spec({"p": {"adapters": writers}}, {"d": {}}, models))
    assert [model.shares for model in plan.models] == [(Sharing.DEDICATED,)] * 2


def test_weights_in_fewer_bits_say_so_in_their_configuration_too(family: Family) -> None:
    few = family.checkpoint("few", quantization_config={"quant_method": "gptq"})
    prefill: Pools = {name: {"weights": family.checkpoint(name)} for name in ("a", "b")}
    models: Pools = {name: {"prefill": name, "decode": "d"} for name in prefill}
    plan = make_plan(family.spec(prefill, {"d": {"weights": few}}, models))
    assert [model.shares for model in plan.models] == [(Sharing.QSUN,)] * 2

"""What a plan says about sharing, sizes and modules that do not fit."""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from pydantic import JsonValue
from rich.console import Console

from cluster.plan import Plan, Sharing, Span, make_plan
from cluster.plan_table import render_plan
from heliostat.errors import SpecError
from heliostat.spec import Spec, Transfer

SUN, SHARE, DEDICATED = Sharing.SUN, Sharing.PREFILL_SHARE, Sharing.DEDICATED
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rope_theta": 10000.0,
    "vocab_size": 128,
}

Checkpoint = Callable[..., str]
"""Writes a fake checkpoint, `(name, weights, **config)`, and gives its directory."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    def write(name: str, weights: str, **config: int) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG | config))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_text(weights)
        return str(folder)

    return write


def spec_of(
    prefill: dict[str, str], decode: dict[str, str], base: str = "org/base", **models: tuple[str, str]
) -> Spec:
    def pools(weights: dict[str, str]) -> dict[str, JsonValue]:
        return {name: {"weights": value} for name, value in weights.items()}

    return Spec.model_validate(
        {
            "family": {"base": base},
            "prefill": pools(prefill),
            "decode": pools(decode),
            "models": {name: {"prefill": pair[0], "decode": pair[1]} for name, pair in models.items()},
        }
    )


def shares(plan: Plan) -> dict[str, tuple[Sharing, ...]]:
    return {model.name: model.shares for model in plan.models}


def test_a_decode_pool_of_two_domains_is_sun() -> None:
    spec = spec_of(
        {"home": "org/home", "mirror": "org/mirror"},
        {"shared": "org/base"},
        home=("home", "shared"),
        mirror=("mirror", "shared"),
    )
    assert shares(make_plan(spec)) == {"home": (SUN,), "mirror": (SUN,)}


def test_a_prefill_pool_of_two_decode_modules_is_prefill_share() -> None:
    spec = spec_of(
        {"base": "org/base"},
        {"home": "org/home", "spell": "org/spell"},
        home=("base", "home"),
        spell=("base", "spell"),
    )
    assert shares(make_plan(spec)) == {"home": (SHARE,), "spell": (SHARE,)}


def test_a_model_may_share_both_its_pools() -> None:
    spec = spec_of(
        {"base": "org/base", "home": "org/home"},
        {"base": "org/base", "spell": "org/spell"},
        both=("base", "base"),
        home=("home", "base"),
        spell=("base", "spell"),
    )
    assert shares(make_plan(spec)) == {"both": (SUN, SHARE), "home": (SUN,), "spell": (SHARE,)}


def test_a_model_alone_on_its_pools_is_dedicated() -> None:
    spec = spec_of(
        {"a": "org/a", "b": "org/b"},
        {"a": "org/c", "b": "org/d"},
        a=("a", "a"),
        b=("b", "b"),
        alias=("b", "b"),
    )
    assert set(shares(make_plan(spec)).values()) == {(DEDICATED,)}


def test_prefill_pools_with_equal_weights_are_one_domain(checkpoint: Checkpoint) -> None:
    weights = {"left": checkpoint("left", "same"), "right": checkpoint("right", "same")}
    decode = {"shared": checkpoint("base", "base")}
    plan = make_plan(spec_of(weights, decode, left=("left", "shared"), right=("right", "shared")))
    assert plan.pools[0].domain == plan.pools[1].domain is not None
    assert shares(plan) == {"left": (DEDICATED,), "right": (DEDICATED,)}


def test_decode_pools_with_equal_weights_are_one_module(checkpoint: Checkpoint) -> None:
    decode = {"left": checkpoint("left", "same"), "right": checkpoint("right", "same")}
    prefill = {"one": checkpoint("one", "1"), "two": checkpoint("two", "2")}
    alone = make_plan(spec_of(prefill, decode, left=("one", "left"), right=("one", "right")))
    assert shares(alone) == {"left": (DEDICATED,), "right": (DEDICATED,)}
    shared = make_plan(spec_of(prefill, decode, left=("one", "left"), right=("two", "right")))
    assert shares(shared) == {"left": (SUN,), "right": (SUN,)}


def test_only_local_prefill_pools_have_a_domain(checkpoint: Checkpoint) -> None:
    local = checkpoint("local", "x")
    spec = spec_of({"local": local, "hub": "org/hub"}, {"d": local}, a=("local", "d"), b=("hub", "d"))
    domains = {(pool.role.value, pool.name): pool.domain for pool in make_plan(spec).pools}
    assert len(domains.pop(("prefill", "local")) or "") == 16
    assert domains == {("prefill", "hub"): None, ("decode", "d"): None}


def sized_spec() -> Spec:
    return Spec.model_validate(
        {
            "family": {"base": "org/base"},
            "transfer": {"connector": {"name": "NixlConnector"}},
            "prefill": {
                "a": {"weights": "org/a", "replicas": {"min": 1, "max": 4}, "gpus": 2},
                "b": {"weights": "org/b", "replicas": 2, "gpus": 1},
                "idle": {"weights": "org/idle", "gpus": 0},
            },
            "decode": {"shared": {"weights": "org/base", "replicas": {"min": 0, "max": 8}, "gpus": 4}},
            "models": {
                "a": {"prefill": "a", "decode": "shared"},
                "b": {"prefill": "b", "decode": "shared"},
            },
        }
    )


def test_tensor_parallelism_needs_a_connector_that_knows_ranks() -> None:
    ours = sized_spec().model_copy(update={"transfer": Transfer()})
    with pytest.raises(SpecError) as refused:
        make_plan(ours)
    assert [finding.partition(" splits")[0] for finding in refused.value.findings] == [
        "prefill.a: `gpus: 2`",
        "decode.shared: `gpus: 4`",
    ]


def test_a_pool_knows_its_size_and_its_models() -> None:
    pools = {pool.name: pool for pool in make_plan(sized_spec()).pools}
    assert (pools["a"].replicas, pools["a"].gpus, pools["a"].models) == (Span(1, 4), Span(2, 8), ("a",))
    assert (pools["idle"].gpus, pools["idle"].models) == (Span(0, 0), ())
    assert (pools["shared"].gpus, pools["shared"].models) == (Span(0, 32), ("a", "b"))


def test_totals_compare_with_a_pair_of_pools_for_each_model() -> None:
    totals = make_plan(sized_spec()).totals
    assert totals.replicas == Span(1 + 2 + 1 + 0, 4 + 2 + 1 + 8)
    assert totals.dedicated_replicas == Span(1 + 0 + 2 + 0, 4 + 8 + 2 + 8)
    assert totals.replicas_saved == Span(-1, 7)
    assert totals.gpus == Span(2 + 2 + 0 + 0, 8 + 2 + 0 + 32)
    assert totals.dedicated_gpus == Span(2 + 0 + 2 + 0, 8 + 32 + 2 + 32)
    assert totals.gpus_saved == Span(0, 32)


def findings(spec: Spec) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        make_plan(spec, "cluster.yaml")
    assert caught.value.file == "cluster.yaml"
    return caught.value.findings


def test_every_module_that_misses_the_family_is_named(checkpoint: Checkpoint) -> None:
    base, deep = checkpoint("base", "base"), checkpoint("deep", "deep", num_hidden_layers=3)
    words = checkpoint("words", "words", vocab_size=256)
    spec = spec_of(
        {"deep": deep, "fits": base}, {"words": words}, base, a=("deep", "words"), b=("fits", "words")
    )
    assert findings(spec) == (
        "prefill.deep: family.base and prefill.deep cannot exchange KV caches: num_layers is 2 in the one "
        "and 3 in the other; choose weights that are tuned from the base",
        "decode.words: family.base and decode.words cannot exchange KV caches: vocab_size is 128 in the one "
        "and 256 in the other; choose weights that are tuned from the base",
    )


def test_a_pair_that_does_not_fit_is_named_when_the_base_is_on_the_hub(checkpoint: Checkpoint) -> None:
    prefill, decode = checkpoint("p", "p"), checkpoint("d", "d", num_key_value_heads=4)
    spec = spec_of({"p": prefill}, {"d": decode, "fits": prefill}, odd=("p", "d"), good=("p", "fits"))
    assert findings(spec) == (
        "models.odd: prefill.p and decode.d cannot exchange KV caches: num_kv_heads is 2 in the one "
        "and 4 in the other; pair pools of one family",
    )


def test_a_checkpoint_without_weights_is_named(checkpoint: Checkpoint) -> None:
    good, bare = checkpoint("good", "x"), checkpoint("bare", "")
    (Path(bare) / "model.safetensors").unlink()
    (finding,) = findings(spec_of({"bare": bare}, {"d": good}, good, m=("bare", "d")))
    assert finding.startswith(f"prefill.bare: {bare}: no *.safetensors file")


def test_json_has_stable_keys() -> None:
    plan = json.loads(make_plan(sized_spec()).to_json())
    assert list(plan) == ["pools", "models", "totals"]
    assert plan["pools"][0] == {
        "role": "prefill",
        "name": "a",
        "weights": "org/a",
        "domain": None,
        "replicas": {"min": 1, "max": 4},
        "gpus": {"min": 2, "max": 8},
        "models": ["a"],
        "adapters": [],
    }
    assert plan["models"][0] == {
        "name": "a",
        "prefill": "a",
        "decode": "shared",
        "shares": ["SUN"],
        "prefill_adapter": None,
        "decode_adapter": None,
    }
    assert list(plan["totals"]) == [
        "replicas",
        "gpus",
        "dedicated_replicas",
        "dedicated_gpus",
        "replicas_saved",
        "gpus_saved",
    ]


def rendered(plan: Plan) -> str:
    out = StringIO()
    render_plan(plan, Console(file=out, width=100, force_terminal=False))
    return out.getvalue()


def cells(text: str) -> Iterator[list[str]]:
    """Table rows, by their cells."""
    return (line.replace("  ", "\t").split("\t") for line in text.splitlines())


def test_tables_show_every_pool_model_and_total_without_colours() -> None:
    text = rendered(make_plan(sized_spec()))
    rows = [[cell.strip() for cell in row if cell.strip()] for row in cells(text)]
    assert ["prefill", "a", "org/a", "after download", "1 to 4", "2 to 8", "a"] in rows
    assert ["prefill", "idle", "org/idle", "after download", "1", "0", "(unused)"] in rows
    assert ["decode", "shared", "org/base", "-", "0 to 8", "0 to 32", "a, b"] in rows
    assert ["b", "b", "shared", "SUN"] in rows
    assert ["replicas", "4 to 15", "3 to 22", "-1 to 7"] in rows
    assert ["GPUs", "4 to 42", "4 to 74", "0 to 32"] in rows
    assert "\x1b" not in text


def test_local_weights_are_shown_below_their_common_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    local = checkpoint("home-prefill-[q4]", "x")
    lines = rendered(make_plan(spec_of({"home": local}, {"d": "org/d"}, m=("home", "d")))).splitlines()
    assert f"weights that begin with ./ are in {tmp_path}" in lines
    assert any("./home-prefill-[q4] " in line for line in lines)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100

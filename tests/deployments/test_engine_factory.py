"""What a replica is to others follows from its weights, its card, and settings that both sides must share."""

import shutil
from pathlib import Path

import pytest

from deployments.engine_factory import engine_config
from heliostat.spec import Connector, Family, Pool, PoolSpec, Transfer
from heliostat.wire import Role, Version
from kvtransfer.card import Method, ModuleCard, write_card
from kvtransfer.contract import kv_domain, read_module
from kvtransfer.fit import version_misfit

WEIGHTS = Path(__file__).parents[2] / "examples" / "quickstart" / "weights"
BASE = read_module(WEIGHTS / "base")


def version(
    weights: Path, role: Role = Role.DECODE, *, transfer: Transfer | None = None, **pool: object
) -> Version:
    spec = PoolSpec(
        role=role,
        name="p",
        family=Family(base=str(WEIGHTS / "base"), dtype="float32"),
        transfer=transfer or Transfer(),
        pool=Pool(weights=str(weights), **{"engine": "sim", **pool}),
    )
    return engine_config(spec, "replica").version


def test_it_names_the_weights_and_what_they_write() -> None:
    made = version(WEIGHTS / "home-prefill", Role.PREFILL)
    module = read_module(WEIGHTS / "home-prefill")
    assert (made.weights, made.source) == (module.weights, str(WEIGHTS / "home-prefill"))
    assert made.domain == kv_domain(module, "float32")
    assert "engine=sim" in made.contract.splitlines()
    assert (made.method, made.partner, made.partners) == ("", "", ())


def test_replicas_of_one_pool_are_of_one_version_and_other_weights_of_another(tmp_path: Path) -> None:
    one = version(WEIGHTS / "base")
    assert version(WEIGHTS / "base", max_running=3).id == one.id, "which says nothing about KV"
    assert version(WEIGHTS / "home-prefill").id != one.id
    moved = version(Path(shutil.copytree(WEIGHTS / "base", tmp_path / "moved")))
    assert moved.id != one.id and moved.weights == one.weights


def test_a_card_counts(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(WEIGHTS / "home-prefill", tmp_path / "home"))
    card = ModuleCard(
        method=Method.SUN,
        role="prefill",
        kind="weights",
        base=BASE.weights,
        partner=BASE.weights,
        tokenizer=BASE.contract.tokenizer,
    )
    write_card(folder, card)
    made = version(folder, Role.PREFILL)
    assert (made.method, made.partner) == ("sun", BASE.weights)
    assert version_misfit(made, version(WEIGHTS / "base")) is None
    assert version_misfit(made, version(WEIGHTS / "spell-decode")) is not None


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("transport", {"transfer": Transfer(transport="nixl")}),
        ("transport", {"transfer": Transfer(connector=Connector(name="NixlConnector"))}),
        ("block_size", {"engine_args": {"block_size": 64}}),
        ("kv_cache_dtype", {"engine_args": {"kv_cache_dtype": "fp8"}}),
        ("dtype", {"engine_args": {"dtype": "bfloat16"}}),
    ],
)
def test_settings_that_both_sides_must_share_are_in_the_contract(
    field: str, change: dict[str, object]
) -> None:
    problem = version_misfit(version(WEIGHTS / "base", Role.PREFILL), version(WEIGHTS / "base", **change))
    assert problem is not None and f"exchange KV caches: {field} is" in problem


def test_a_real_engine_says_its_release_whichever_build_it_is() -> None:
    lines = version(WEIGHTS / "base", engine="vllm").contract.splitlines()
    (engine,) = (line for line in lines if line.startswith("engine="))
    assert engine.removeprefix("engine=vllm ").split(".")[0].isdecimal()

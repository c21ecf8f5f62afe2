"""What a new model is made of: found, checked, or refused with what is wrong and what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.catalog_files import ModuleFiles, spec_models
from heliostat.errors import HeliostatError, InvalidRequestError
from heliostat.spec import Spec
from heliostat.wire import Role
from kvtransfer.card import Method, ModuleCard, write_card
from kvtransfer.contract import read_module
from router.frontend.models import NewModel

FAMILY = Path(__file__).parents[2] / "examples" / "quickstart" / "weights"
BASE = read_module(FAMILY / "base")
Made = Callable[..., Path]


def spec_of(listed: Path | None = None, **model: str) -> Spec:
    base, home = str(FAMILY / "base"), str(FAMILY / "home-prefill")
    adapters = {"spell": str(listed)} if listed else {}
    return Spec.model_validate(
        {
            "family": {"base": base},
            "prefill": {"home": {"weights": home, "lora": {}}, "base": {"weights": base}},
            "decode": {
                "base": {"weights": base, "lora": {}, "adapters": adapters},
                "plain": {"weights": base},
                "shared": {"weights": base, "icarus": True},
            },
            "models": {"first": {"prefill": "base", "decode": "base", **model}},
        }
    )


def new(**more: object) -> NewModel:
    return NewModel.model_validate({"name": "late", "prefill": "base", "decode": "base", **more})


def card(method: Method, role: str = "decode", base: str = BASE.weights, partner: str = "") -> ModuleCard:
    tokenizer = BASE.contract.tokenizer
    return ModuleCard.model_validate(
        {"method": method, "role": role, "kind": "adapter", "base": base, "partner": partner}
        | {"tokenizer": tokenizer}
    )


def carded(folder: Path, made: ModuleCard) -> Path:
    write_card(folder, made)
    return folder


def test_an_adapter_is_found_by_its_directory_or_by_the_name_that_the_pool_gives_it(lora: Made) -> None:
    files = ModuleFiles(spec_of(listed=lora("x")))
    by_path = files.find(new(decode_adapter=str(lora("x")))).decode_adapter
    served = files.find(new(decode_adapter="spell"))
    assert by_path is not None and served.decode_adapter is not None
    assert served.decode_adapter.adapter == by_path.adapter
    assert (served.decode_adapter.source, served.model.decode_adapter) == ("spell", "spell")
    assert by_path.adapter.path == str(lora("x"))


def test_a_model_without_adapters_is_a_pair_of_pools() -> None:
    served = ModuleFiles(spec_of()).find(new(prefill="home", limits={"concurrency": 3}))
    assert served.adapter(Role.PREFILL) is served.adapter(Role.DECODE) is None
    assert (served.model.prefill, served.model.limits.concurrency) == ("home", 3)


def refusal(model: NewModel, spec: Spec | None = None) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        ModuleFiles(spec or spec_of()).find(model)
    return str(caught.value)


def test_an_unknown_pool_is_named_with_the_nearest() -> None:
    assert 'no decode pool "bse"; did you mean `base`?' in refusal(new(decode="bse"))


def test_a_pool_without_room_for_adapters_says_how_to_make_room(lora: Made) -> None:
    said = refusal(new(decode="plain", decode_adapter=str(lora("x"))))
    assert "decode.plain makes no room for adapters" in said and "lora: {}" in said


def test_what_is_no_adapter_is_said(tmp_path: Path, lora: Made) -> None:
    assert "no such directory" in refusal(new(decode_adapter=str(tmp_path / "nowhere")))
    assert "adapter_config.json: missing" in refusal(new(decode_adapter=str(FAMILY / "base")))
    named = refusal(new(decode_adapter="spel"), spec_of(listed=lora("x")))
    assert "did you mean `spell`?" in named
    (lora("x") / "adapter_model.safetensors").unlink()
    assert "no *.safetensors file" in refusal(new(decode_adapter=str(lora("x"))))


def test_an_adapter_of_another_base_is_refused(lora: Made) -> None:
    made = carded(lora("x"), card(Method.PREFILL_SHARE, base="f" * 32))
    said = refusal(new(decode_adapter=str(made)))
    assert "another base" in said and "this pool has" in said and "decode.base" in said


def test_an_adapter_of_the_other_side_is_refused(lora: Made) -> None:
    made = carded(lora("x"), card(Method.SUN, role="prefill"))
    assert "prefill side" in refusal(new(decode_adapter=str(made)))


def test_icarus_adapters_and_icarus_pools_belong_together(lora: Made) -> None:
    plain = carded(lora("plain"), card(Method.PREFILL_SHARE, partner=BASE.weights))
    icarus = carded(lora("icarus"), card(Method.ICARUS, partner=BASE.weights))
    writes = lora("writes", targets=("q_proj", "k_proj"))
    assert "icarus" in refusal(new(decode="shared", decode_adapter=str(plain)))
    assert "icarus: true" in refusal(new(decode="base", decode_adapter=str(icarus)))
    assert "k_proj" in refusal(new(decode="shared", decode_adapter=str(writes)))
    assert ModuleFiles(spec_of()).find(new(decode="shared", decode_adapter=str(icarus))).decode_adapter


def test_only_the_base_writes_for_an_icarus_pool(lora: Made) -> None:
    assert "same weights" in refusal(new(prefill="home", decode="shared"))
    spec = spec_of().model_dump()
    spec["prefill"]["base"]["lora"] = {}
    adapted = new(decode="shared", prefill_adapter=str(lora("x")))
    assert "leave the prefill adapter out" in refusal(adapted, Spec.model_validate(spec))


def test_a_pair_that_was_not_trained_together_is_served_only_on_request(lora: Made) -> None:
    made = carded(lora("x"), card(Method.PREFILL_SHARE, partner=BASE.weights))
    pair = new(prefill="home", decode_adapter=str(made))
    assert "untrained_pair: true" in refusal(pair)
    allowed = pair.model_copy(update={"untrained_pair": True})
    assert ModuleFiles(spec_of()).find(allowed).decode_adapter
    assert ModuleFiles(spec_of()).find(new(decode_adapter=str(made))).decode_adapter


def test_the_specs_models_come_with_their_adapters(lora: Made) -> None:
    served = spec_models(spec_of(listed=lora("x"), decode_adapter="spell"))["first"]
    assert served.decode_adapter is not None and served.prefill_adapter is None
    assert served.decode_adapter.adapter.path == str(lora("x"))


def test_an_adapter_of_the_spec_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"decode\.base\.adapters\.spell: .*no such directory"):
        spec_models(spec_of(listed=tmp_path / "nowhere", decode_adapter="spell"))

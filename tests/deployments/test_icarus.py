"""What is decided before an ICaRus engine runs: whose blocks are shared, and what does not start."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from vllm import ModelRegistry
from vllm.lora.request import LoRARequest
from vllm.v1.core import kv_cache_utils

from deployments.icarus.checks import refuse
from deployments.icarus.registration import ARCHITECTURES, ICARUS, icarus_args, register_icarus
from heliostat.errors import HeliostatError

SETTINGS = {
    "parallel_config": {"tensor_parallel_size": 1, "pipeline_parallel_size": 1},
    "cache_config": {"kv_sharing_fast_prefill": True},
    "model_config": {"enforce_eager": True},
}


@pytest.fixture
def stock_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test registers, vLLM's own block keys are back after it."""
    stock = kv_cache_utils._gen_lora_extra_hash_keys
    yield
    kv_cache_utils._gen_lora_extra_hash_keys = stock


def block_keys(adapter: str | None) -> object:
    """The keys beside its tokens that vLLM gives a request's second block."""
    lora = LoRARequest(adapter, 1, f"/adapters/{adapter}") if adapter else None
    request = SimpleNamespace(lora_request=lora, mm_features=[], cache_salt=None, prompt_embeds=None)
    return kv_cache_utils.generate_block_hash_extra_keys(request, 32, 64, 0)[0]


def test_adapters_share_blocks_with_the_base_in_an_icarus_engine(
    stock_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ICARUS, "1")
    register_icarus()
    assert block_keys("A") == block_keys("B") == block_keys(None)
    assert set(ARCHITECTURES.values()) <= set(ModelRegistry.get_supported_archs())


@pytest.mark.parametrize("value", [None, "0"])
def test_adapters_keep_their_own_blocks_in_any_other_engine(
    stock_keys: None, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(ICARUS, raising=False)
    if value is not None:
        monkeypatch.setenv(ICARUS, value)
    register_icarus()
    assert len({block_keys("A"), block_keys("B"), block_keys(None)}) == 3


def config(section: str = "", key: str = "", value: object = None) -> SimpleNamespace:
    sections = {name: dict(settings) for name, settings in SETTINGS.items()}
    if key:
        sections[section][key] = value
    made = SimpleNamespace(**{name: SimpleNamespace(**settings) for name, settings in sections.items()})
    made.speculative_config = value if section == "speculative_config" else None
    return made


def test_the_settings_that_a_pool_gives_are_accepted() -> None:
    refuse(config())


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("parallel_config", "tensor_parallel_size", 2, "tensor_parallel_size is 2"),
        ("parallel_config", "pipeline_parallel_size", 2, "pipeline_parallel_size is 2"),
        ("model_config", "enforce_eager", False, "set enforce_eager to true"),
        ("cache_config", "kv_sharing_fast_prefill", False, "kv_sharing_fast_prefill is off"),
        ("speculative_config", "", object(), "remove speculative_config"),
    ],
)
def test_a_setting_that_two_streams_cannot_keep_is_refused(
    section: str, key: str, value: object, message: str
) -> None:
    with pytest.raises(HeliostatError, match=message):
        refuse(config(section, key, value))


def test_a_base_of_another_architecture_is_refused() -> None:
    with pytest.raises(HeliostatError, match="the base is a MistralForCausalLM"):
        icarus_args("MistralForCausalLM")

"""Facts about the grid, GPTQ and AWQ, on random weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.quantize_awq import fold_best_scale, output_error
from finetune.quantize_check import check_keys_values
from finetune.quantize_gptq import gptq
from finetune.quantize_grid import Grid
from finetune.quantize_inputs import Moments, input_moments
from finetune.quantize_layers import MAPS, QuantizeMethod, quantize_layers
from heliostat.errors import HeliostatError

GRID = Grid(bits=4, group_size=32, dtype=torch.bfloat16)
PROMPTS = [list(range(start, start + 12)) for start in range(40)]


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def uneven_inputs() -> Moments:
    """Correlated inputs of which a few are large, as in real models."""
    torch.manual_seed(1)
    inputs = torch.randn(512, 64) @ (torch.eye(64) + 0.3 * torch.randn(64, 64))
    inputs[:, ::16] *= 20
    moments = Moments(torch.zeros(64, 64), torch.zeros(64))
    moments.add(inputs)
    return moments


@torch.inference_mode()
def logits(model: LlamaForCausalLM) -> Tensor:
    return model(input_ids=torch.tensor(PROMPTS)).logits


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_weight_is_at_most_half_a_step_off_except_at_the_upper_end(bits: int) -> None:
    torch.manual_seed(0)
    weight, grid = torch.randn(8, 64), Grid(bits, 32, torch.bfloat16)
    found = grid.nearest(weight)
    steps = (grid.values(found.codes, found.scale) - weight).abs() / found.scale.float().repeat_interleave(
        32, 1
    )
    top = found.codes == 2 ** (bits - 1) - 1
    assert steps[~top].max() < 0.5 + 2.0 ** (bits - 8)  # beyond a half: bfloat16 rounds the value itself
    assert int(found.codes.min()) >= -(2 ** (bits - 1)) and bool(top.any())


def test_a_positive_maximum_is_exact_where_that_is_wanted_and_clipped_where_not() -> None:
    weight = torch.linspace(-0.5, 1.0, 32)[None]
    for grid, top in ((replace(GRID, exact_maximum=True), 1.0), (GRID, 7 / 7.5)):
        found = grid.nearest(weight)
        assert float(grid.values(found.codes, found.scale)[0, -1]) == pytest.approx(top, abs=5e-3)


def test_values_are_representable_in_the_run_dtype() -> None:
    found = GRID.nearest(torch.randn(8, 64))
    values = GRID.values(found.codes, found.scale)
    assert torch.equal(values, values.to(torch.bfloat16).float())
    assert found.scale.dtype == torch.bfloat16


def test_a_row_of_zeros_stays_zero() -> None:
    found = GRID.nearest(torch.zeros(1, 32))
    assert not GRID.values(found.codes, found.scale).any()


def test_gptq_loses_less_of_the_output_than_rounding_to_nearest() -> None:
    torch.manual_seed(0)
    weight, moments = torch.randn(32, 64), uneven_inputs()
    nearest, found = GRID.nearest(weight), gptq(weight, moments.second, GRID)
    assert output_error(GRID.values(found.codes, found.scale), weight, moments) < 0.7 * output_error(
        GRID.values(nearest.codes, nearest.scale), weight, moments
    )


def test_gptq_with_uncorrelated_inputs_is_rounding_to_nearest() -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 64)
    nearest, found = GRID.nearest(weight), gptq(weight, torch.eye(64), GRID)
    assert torch.equal(found.codes, nearest.codes) and torch.equal(found.scale, nearest.scale)


def test_gptq_refuses_moments_of_nothing() -> None:
    with pytest.raises(HeliostatError, match="no usable statistics"):
        gptq(torch.randn(32, 64), torch.zeros(64, 64), GRID)


def test_awq_loses_less_of_the_output_than_rounding_to_nearest() -> None:
    torch.manual_seed(0)
    moments, norm, linear = uneven_inputs(), torch.nn.RMSNorm(64), torch.nn.Linear(64, 32, bias=False)
    before, grid = linear.weight.data.clone(), replace(GRID, exact_maximum=True)
    scale = fold_best_scale(norm, [linear], moments, grid)
    found, nearest = grid.nearest(linear.weight.data), GRID.nearest(before)
    effective = grid.values(found.codes, found.scale) / scale
    plain = GRID.values(nearest.codes, nearest.scale)
    assert output_error(effective, before, moments) < 0.7 * output_error(plain, before, moments)


def test_folding_changes_nothing_in_full_precision() -> None:
    """Of all that AWQ does, only rounding may lose: with 8 bits and no folding error logits stay."""
    model, fine = tiny_model(), Grid(8, 32, torch.float32)
    before = logits(model)
    quantize_layers(model, QuantizeMethod.AWQ, fine, PROMPTS, lambda share: None)
    norms = [layer.input_layernorm.weight for layer in model.model.layers]
    assert any(not torch.allclose(norm, torch.ones_like(norm)) for norm in norms), "nothing was folded"
    assert float((logits(model) - before).norm() / before.norm()) < 0.03


def test_awq_folds_nothing_into_values_or_keys() -> None:
    base, model = tiny_model(), tiny_model()
    quantize_layers(model, QuantizeMethod.AWQ, GRID, PROMPTS, lambda share: None)
    check_keys_values(base, model, torch.bfloat16)


@pytest.mark.parametrize(
    ("grown", "shrunk"), [("v_proj", "o_proj"), ("k_proj", "q_proj")], ids=["v to o", "k to q"]
)
def test_a_fold_that_only_the_module_itself_survives_is_refused(grown: str, shrunk: str) -> None:
    base, model = tiny_model(), tiny_model()
    attention = model.model.layers[1].self_attn
    factor = torch.ones(64)
    factor[3] = 2.0
    if grown == "k_proj":
        factor[3 + 16] = 2.0  # rope turns a channel and its partner half a head away together
    attention.get_submodule(grown).weight.data *= factor[:, None]
    if grown == "v_proj":
        attention.get_submodule(shrunk).weight.data /= factor
    else:
        attention.get_submodule(shrunk).weight.data /= factor[:, None]
    assert torch.allclose(logits(base), logits(model), atol=1e-4), (
        "the module's own answers are what they were"
    )
    with pytest.raises(HeliostatError, match=f"layer 1, {grown}, channel 3: .* 2.00 times"):
        check_keys_values(base, model, torch.bfloat16)


def test_moments_are_those_of_the_real_inputs() -> None:
    model, seen = tiny_model(), []
    layer = model.model.layers[0]
    hook = layer.self_attn.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(input_ids=torch.tensor(PROMPTS))
    hook.remove()
    rows = seen[0].reshape(-1, 64)
    found = input_moments(model, {name: layer.get_submodule(name) for name in MAPS}, PROMPTS)
    assert torch.allclose(found["self_attn.q_proj"].second, rows.T @ rows, rtol=1e-3, atol=1e-2)
    assert found["mlp.down_proj"].tokens == sum(map(len, PROMPTS))

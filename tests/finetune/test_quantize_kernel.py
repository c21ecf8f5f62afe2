"""A fact about vLLM's CPU kernel: it multiplies with exactly what `load_dequantized` returns."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.quantize import QuantizeSettings, quantize
from finetune.quantize_layers import QuantizeMethod
from finetune.quantize_load import load_dequantized

BASE = Path(__file__).parents[2] / "examples" / "quickstart" / "weights" / "base"
NAMES = ("model.layers.0.self_attn.k_proj", "model.layers.3.mlp.down_proj")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_multiplies_with_the_loaded_weights_bit_for_bit(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    ops = pytest.importorskip("vllm._custom_ops")
    if not hasattr(torch.ops._C, "cpu_gemm_wna16"):
        pytest.skip("this vLLM is not the CPU build")
    out = tmp_path / "out"
    quantize(BASE, out, QuantizeSettings(QuantizeMethod.RTN, dtype=dtype))
    stored, model = load_file(out / "model.safetensors"), load_dequantized(out)
    for name in NAMES:
        weight = model.get_submodule(name).weight
        rows, columns = weight.shape
        codes = (stored[f"{name}.weight_packed"][:, :, None] >> torch.arange(0, 32, 4)) & 15
        # As `CPUWNA16LinearKernel` packs them: [in, out], eight outputs a word, 16 outputs a block.
        words = (codes.flatten(1).t().reshape(columns, -1, 8) << torch.arange(0, 32, 4)).sum(dim=2).int()
        blocks = words.view(columns, -1, 2).permute(1, 0, 2).reshape(-1, columns * 2).contiguous()
        product = ops.cpu_gemm_wna16(
            input=torch.eye(columns, dtype=dtype),
            q_weight=blocks,
            scales=stored[f"{name}.weight_scale"].t().contiguous(),
            zeros=None,
            bias=None,
            pack_factor=8,
            isa_hint="vec",
        )
        assert product.shape == (columns, rows)
        assert torch.equal(product.t().float(), weight)

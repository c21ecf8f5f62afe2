"""LoRA's torch ops on CPU: equal to vLLM's where vLLM is right, and no delta where there is no adapter."""

import pytest
import torch
from vllm.lora.ops.torch_ops import lora_ops as stock

from deployments import vllm_lora_cpu as ours

SLOTS, IN, OUT, RANK = 5, 48, 40, 8
INDICES = {
    "one run per adapter": [0, 0, 0, 3, 3, 1],
    "adapters in turns": [2, 0, 2, 0, 4, 2],
    "one adapter": [4, 4, 4, 4, 4, 4],
    "a row each": [0, 1, 2, 3, 4, 0],
}
EVERY = pytest.mark.parametrize("indices", INDICES.values(), ids=INDICES)
WEIGHTS = pytest.mark.parametrize("stacked", [True, False], ids=["[slots, 1, ...]", "[slots, ...]"])


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def weights(rows: int, columns: int, stacked: bool, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    matrices = random(SLOTS, rows, columns, dtype=dtype)
    return matrices[:, None] if stacked else matrices


def runs(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int, int]:
    """The metadata of `sgmv_*`, as `PunicaWrapperBase.prefill_metadata` has it."""
    values, lengths = torch.unique_consecutive(torch.tensor(indices), return_counts=True)
    return torch.cumsum(lengths, 0) - lengths, lengths, values, len(values), int(lengths.max()), len(indices)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """In bfloat16 the stock ops round the delta before they add it, and these once, after."""
    rough = expected.dtype is torch.bfloat16
    torch.testing.assert_close(actual, expected, rtol=0.02 if rough else 1e-5, atol=0.1 if rough else 1e-5)


@EVERY
@WEIGHTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shrink_equals_the_stock_ops(indices: list[int], stacked: bool, dtype: torch.dtype) -> None:
    inputs, a = random(len(indices), IN, dtype=dtype), weights(RANK, IN, stacked, dtype)
    # The buffer may be wider than this adapter's rank, and what stands beyond it stays.
    expected, run_wise, row_wise = (torch.full((len(indices), RANK + 2), 7.0) for _ in range(3))
    stock.bgmv_shrink(inputs, a, expected, torch.tensor(indices), 0.5)
    ours.bgmv_shrink(inputs, a, row_wise, torch.tensor(indices), 0.5)
    ours.sgmv_shrink(inputs, a, run_wise, *runs(indices), 0.5)
    assert_same(row_wise, expected)
    assert_same(run_wise, expected)


@EVERY
@WEIGHTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("columns", [OUT - 4, OUT, OUT + 4])
def test_expand_equals_the_stock_ops(
    indices: list[int], stacked: bool, dtype: torch.dtype, add: bool, columns: int
) -> None:
    inputs, b = random(len(indices), RANK), weights(OUT, RANK, stacked, dtype)
    expected, run_wise, row_wise = (random(len(indices), columns, dtype=dtype) for _ in range(3))
    stock.bgmv_expand(inputs, b, expected, torch.tensor(indices), add)
    ours.bgmv_expand(inputs, b, row_wise, torch.tensor(indices), add)
    ours.sgmv_expand(inputs, b, run_wise, *runs(indices), add)
    assert_same(row_wise, expected)
    assert_same(run_wise, expected)


@EVERY
@WEIGHTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("add", [True, False])
def test_a_slice_of_the_columns_equals_the_stock_ops(
    indices: list[int], stacked: bool, dtype: torch.dtype, add: bool
) -> None:
    inputs, b = random(len(indices), RANK), weights(OUT, RANK, stacked, dtype)
    expected, run_wise, row_wise = (random(len(indices), OUT + 20, dtype=dtype) for _ in range(3))
    stock.bgmv_expand_slice(inputs, b, expected, torch.tensor(indices), 12, OUT, add)
    ours.bgmv_expand_slice(inputs, b, row_wise, torch.tensor(indices), 12, OUT, add)
    ours.sgmv_expand_slice(inputs, b, run_wise, *runs(indices), 12, OUT, add)
    assert_same(row_wise, expected)
    assert_same(run_wise, expected)


def test_a_row_without_an_adapter_gets_no_delta_where_the_stock_ops_give_it_the_last_slot() -> None:
    indices = [-1, 2, -1, -1, 4]
    base = [0, 2, 3]
    inputs, a, b = random(5, IN), weights(RANK, IN, True), weights(OUT, RANK, True)
    buffer, output = torch.full((5, RANK), 7.0), torch.zeros(5, OUT)
    ours.sgmv_shrink(inputs, a, buffer, *runs(indices), 1.0)
    ours.sgmv_expand(buffer, b, output, *runs(indices), True)
    assert not buffer[base].any() and not output[base].any()
    assert output[[1, 4]].any(dim=1).all()
    stock.sgmv_shrink(inputs, a, buffer, *runs(indices), 1.0)
    assert buffer[base].any(), "the pinned vLLM no longer needs this replacement"


def test_a_call_after_a_call_with_other_rows_does_not_reuse_its_groups() -> None:
    inputs, a = random(4, IN), weights(RANK, IN, True)
    indices = torch.tensor([0, 0, 1, 1])
    first, second, expected = torch.zeros(4, RANK), torch.zeros(4, RANK), torch.zeros(4, RANK)
    ours.bgmv_shrink(inputs, a, first, indices)
    indices[1:] = torch.tensor([3, -1, 2])  # vLLM writes the next step's mapping into the same tensor
    ours.bgmv_shrink(inputs, a, second, indices)
    stock.bgmv_shrink(inputs, a, expected, indices)
    expected[2] = 0
    torch.testing.assert_close(second, expected)


def test_the_wrapper_of_vllm_calls_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora.punica_wrapper import punica_cpu

    for name in ours.REPLACED:
        monkeypatch.setattr(punica_cpu, name, getattr(punica_cpu, name))  # restored after this test
    ours.install()
    wrapper = punica_cpu.PunicaWrapperCPU(16, 4, "cpu")
    indices = torch.tensor([-1, 3, 3])
    wrapper._token_lora_indices[:3] = indices
    wrapper.indices_len[0] = 3
    wrapper._update_prefill_metadata(indices)
    wrapper.is_prefill = True
    inputs, a, b = random(3, IN), weights(RANK, IN, True), weights(OUT, RANK, True)
    output = torch.zeros(3, OUT)
    wrapper.add_lora_linear(output, inputs, (a,), (b,), 1.0, (OUT,))
    torch.testing.assert_close(output[1:], inputs[1:] @ a[3, 0].T @ b[3, 0].T)
    assert not output[0].any()

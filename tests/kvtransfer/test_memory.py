"""The engine's KV tensors as bytes: which bytes a block id means, and which tensors are refused."""

import pytest
import torch

from heliostat.errors import TransportError
from kvtransfer.memory import BlockMemory


def cache(num_blocks: int = 8) -> torch.Tensor:
    """Every element of block b is b; 4 bytes each, 6 elements a block."""
    return torch.arange(num_blocks, dtype=torch.int32).view(num_blocks, 1, 1).repeat(1, 2, 3)


def test_a_view_holds_the_bytes_of_its_blocks() -> None:
    tensor = cache()
    (view,) = BlockMemory({"layer": tensor}, "packed").views(0, [5])
    assert bytes(view) == tensor[5].numpy().tobytes()


def test_neighbours_come_as_one_view_in_the_order_asked() -> None:
    tensor = cache()
    views = BlockMemory({"layer": tensor}, "packed").views(0, [3, 4, 5, 1, 0, 7])
    assert [view.nbytes // 24 for view in views] == [3, 1, 1, 1]
    assert b"".join(views) == tensor[[3, 4, 5, 1, 0, 7]].numpy().tobytes()


def test_no_blocks_are_no_views() -> None:
    tensor = cache()
    assert BlockMemory({"layer": tensor}, "packed").views(0, []) == []


def test_writing_a_view_writes_the_tensor() -> None:
    tensor = cache()
    (view,) = BlockMemory({"layer": tensor}, "packed").views(0, [2, 3])
    view[:] = bytes(view.nbytes)
    assert tensor[:, 0, 0].tolist() == [0, 1, 0, 0, 4, 5, 6, 7]


def test_layers_stay_apart() -> None:
    tensors = {"first": cache(), "second": cache() + 100}
    memory = BlockMemory(tensors, "packed")
    assert (memory.num_layers, memory.bytes_per_block) == (2, 48)
    assert bytes(memory.views(1, [0])[0]) == tensors["second"][0].numpy().tobytes()


def test_the_layout_names_what_a_block_is_and_not_how_many_there_are() -> None:
    few, many = {"layer": cache(4)}, {"layer": cache(9)}
    assert BlockMemory(few, "amx").layout == BlockMemory(many, "amx").layout == "torch.int32 (2, 3) x1 amx"


def test_a_layer_that_only_reads_another_ones_blocks_has_none_of_its_own() -> None:
    tensor = cache()
    alone, read = BlockMemory({"a": tensor}, "amx"), BlockMemory({"a": tensor, "a.reader": tensor}, "amx")
    assert (read.num_layers, read.layout) == (alone.num_layers, alone.layout)


def test_the_layout_changes_with_dtype_shape_layers_and_packing() -> None:
    tensor = cache()
    tensors = [tensor, tensor.float(), tensor.view(8, 3, 2)]
    layouts = [BlockMemory({"layer": each}, "amx").layout for each in tensors]
    layouts += [
        BlockMemory({"a": tensor, "b": cache()}, "amx").layout,
        BlockMemory({"a": tensor}, "vec").layout,
    ]
    assert len(set(layouts)) == 5


@pytest.mark.parametrize(
    "tensor",
    [cache().transpose(1, 2), cache().transpose(0, 1), cache()[:, :1], torch.empty(4, 2, 3, device="meta")],
    ids=["block not contiguous", "not block-major", "gap between blocks", "not on the CPU"],
)
def test_a_tensor_without_one_run_of_bytes_per_block_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(
        TransportError, match=r"KV of layer odd is (cpu|meta) \(\d.*block-major KV in CPU memory"
    ):
        BlockMemory({"odd": tensor}, "packed")


def test_layers_of_different_shape_are_refused() -> None:
    tensors = {"a": cache(), "b": cache().view(8, 6)}
    with pytest.raises(TransportError, match="layers differ in KV layout"):
        BlockMemory(tensors, "packed")

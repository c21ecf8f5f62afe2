"""Models that share their leaves: an adapted model without its adapter, and two modules in one skeleton.

A leaf is a module that computes each row by itself: a Linear, an Embedding, a norm, a LoRA layer over one of
them. A view is a copy of everything above the leaves, so a second model costs no second copy of its weights.
"""

import copy
from collections.abc import Callable, Iterator

from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

Replace = Callable[[str, nn.Module], nn.Module]


class NotRowWiseError(ValueError):
    """A module holds weights but is no leaf known to compute each row by itself."""


def leaves(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every leaf; rotary tables, which hold buffers only, are none.

    Raises NotRowWiseError for weights outside a leaf (experts of a mixture, a learned position table).
    """
    if isinstance(model, LoraLayer) or _is_row_wise(model):
        yield prefix, model
        return
    if next(model.parameters(recurse=False), None) is not None:
        raise NotRowWiseError(f"{prefix} is a {type(model).__name__}, which is not known to work row by row")
    for name, child in model.named_children():
        yield from leaves(child, f"{prefix}.{name}" if prefix else name)


def rebuild(model: PreTrainedModel, replace: Replace) -> PreTrainedModel:
    """A copy of `model` whose leaves are what `replace(name, leaf)` returns; nothing else is copied twice."""
    # Whatever deepcopy finds in its memo it takes as the copy.
    memo: dict[int, object] = {id(leaf): replace(name, leaf) for name, leaf in leaves(model)}
    memo[id(model.config)] = model.config
    # Modules that hold tables only (rotary frequencies) stay one, so that they move between devices together.
    memo |= {id(module): module for module in model.modules() if _is_table(module)}
    built: PreTrainedModel = copy.deepcopy(model, memo)
    return built


def plain_view(adapted: PreTrainedModel) -> PreTrainedModel:
    """The model under a LoRA: the same weights, not copied, with the layers that the LoRA adapts."""
    return rebuild(adapted, lambda _, leaf: leaf.get_base_layer() if isinstance(leaf, LoraLayer) else leaf)


def _is_table(module: nn.Module) -> bool:
    return next(module.parameters(), None) is None and next(module.buffers(), None) is not None


def _is_row_wise(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm) or type(module).__name__.endswith(
        "RMSNorm"
    )

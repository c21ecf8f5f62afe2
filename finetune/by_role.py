"""One forward for a pair: each token picks its weights by its role.

x_1 ... x_{N-1} run through the prefill module's weights and x_N, y_1 ... y_{T-1} through the decode module's.
Under causal attention a prompt row sees prompt rows only, so its keys and values are those of `C(X)`, and a
later row reads them beside its own: the same numbers as two forwards with a cache between them
(`finetune.cache_conditioned.response_logits`), in one pass without one.

A batch lies in columns, prompts on the left of one border and the rest on its right, so that a layer parts it
with two slices and no gather. What only predicts after the last K and V runs for the rest alone.

Exact where all weights sit in leaves that compute each row by itself (`finetune.views.leaves`) and both
modules have one architecture; otherwise `merge_roles` raises NotRowWiseError and two forwards remain.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from finetune.views import NotRowWiseError, leaves, rebuild

_UNREAD = ("q_proj", "q_norm", "o_proj", "post_attention_layernorm", "gate_proj", "up_proj", "down_proj")
"""In the last layer nobody reads what these give for a prompt row: its K and V do not depend on them."""


@dataclass(frozen=True)
class Columns:
    """Where the tokens of a batch stand: `border` columns of prompts padded on the left, then the rest.

    `source`, int64, is each column's place in its row of the batch padded on the right, and its position too;
    `real`, bool, is False on padding. Both are `[batch, columns]`.
    """

    source: Tensor
    real: Tensor
    border: int

    @classmethod
    def of(cls, predicts: Tensor) -> Self:
        """From a mask `[batch, length]`: the tokens that predict a response, the first of them x_N."""
        before = (torch.cumsum(predicts, dim=1) == 0).sum(dim=1, keepdim=True)
        after = predicts.sum(dim=1, keepdim=True)
        border, rest = torch.stack([before.max(), after.max()]).tolist()
        source = torch.arange(border + rest, device=predicts.device) - border + before
        real = (source >= 0) & (source < before + after)
        return cls(source.clamp(0, predicts.shape[1] - 1), real, border)


class Current:
    """The columns of the running batch; all leaves of one skeleton hold the same object."""

    def __init__(self) -> None:
        self.columns: Columns | None = None
        self._whole: Tensor | None = None
        self._parts: tuple[Tensor, Tensor] | None = None

    def part(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, columns, ...]` on either side of the border.

        The last answer is kept: q, k and v take one input, mostly what a norm has just joined, and then
        neither the join nor the cut has a gradient to compute.
        """
        if self._parts is None or self._whole is not rows:
            # Contiguous, or each linear that reads a part copies it anew.
            parts = rows[:, : self.border].contiguous(), rows[:, self.border :].contiguous()
            self._whole, self._parts = rows, parts
        return self._parts

    def join(self, prompt: Tensor, rest: Tensor) -> Tensor:
        """The opposite of `part`."""
        self._whole, self._parts = torch.cat([prompt, rest], dim=1), (prompt, rest)
        return self._whole

    def forget(self) -> None:
        """Let go of the tensors of the batch."""
        self._whole = self._parts = None

    @property
    def border(self) -> int:
        assert self.columns is not None, "a skeleton runs through OneForward only"
        return self.columns.border


class ByRole(nn.Module):
    """A leaf that sends each row through the prefill's or the decode's leaf."""

    def __init__(self, prefill: nn.Module, decode: nn.Module, current: Current, constant: bool) -> None:
        super().__init__()
        self.prefill, self.decode = prefill, decode
        self._current, self._constant = current, constant

    def forward(self, rows: Tensor) -> Tensor:
        """`[batch, columns, ...]` to `[batch, columns, ...]`; prompts carry no gradient if constant."""
        prompt, rest = self._current.part(rows)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._constant):
            written = self.prefill(prompt)
        both = self._current.join(written, self.decode(rest))
        if isinstance(self.decode, nn.Embedding):
            # Kept parts must not enter a layer: computed again under checkpointing, it would find none.
            self._current.forget()
        return both


class OnRest(nn.Module):
    """A leaf whose prompt rows nobody reads: they are zeros."""

    def __init__(self, leaf: nn.Module, current: Current) -> None:
        super().__init__()
        self.leaf, self._current = leaf, current

    def forward(self, rows: Tensor) -> Tensor:
        """`[batch, columns, ...]` to `[batch, columns, ...]`."""
        rest: Tensor = self.leaf(self._current.part(rows)[1])
        return pad(rest, [0, 0] * (rest.dim() - 2) + [self._current.border, 0])


class OnPredictions(nn.Module):
    """The output head, where a response token is predicted: `[batch, columns, hidden]` to `[R, vocab]`."""

    def __init__(self, head: nn.Module, current: Current) -> None:
        super().__init__()
        self.head, self._current = head, current

    def forward(self, rows: Tensor) -> Tensor:
        columns, rest = self._current.columns, self._current.part(rows)[1]
        assert columns is not None
        logits: Tensor = self.head(rest[columns.real[:, columns.border :]])
        return logits


def merge_roles(prefill: PreTrainedModel, decode: PreTrainedModel) -> tuple[PreTrainedModel, Current]:
    """A skeleton over the leaves of both, and the handle that tells it the columns of a batch.

    Raises NotRowWiseError where one forward would not be exact.
    """
    if prefill.config.model_type != decode.config.model_type:
        raise NotRowWiseError(f"{prefill.config.model_type} and {decode.config.model_type} differ")
    written = dict(leaves(prefill))
    if written.keys() != dict(leaves(decode)).keys():
        raise NotRowWiseError("the two modules do not have the same layers")
    constant = not any(parameter.requires_grad for parameter in prefill.parameters())
    current = Current()
    head = decode.get_output_embeddings()
    last = f"layers.{decode.config.num_hidden_layers - 1}."

    def pick(name: str, leaf: nn.Module) -> nn.Module:
        if leaf is head:
            return OnPredictions(leaf, current)
        if last in name and name.endswith(_UNREAD):
            return OnRest(leaf, current)
        # One leaf in both roles is called once, on all rows. It is the input's embedding or a frozen norm.
        return leaf if written[name] is leaf else ByRole(written[name], leaf, current, constant)

    skeleton = rebuild(decode, pick)
    _join_once(skeleton, prefill, decode, current, last)
    return skeleton, current


def _join_once(
    skeleton: PreTrainedModel, prefill: PreTrainedModel, decode: PreTrainedModel, current: Current, last: str
) -> None:
    """Part and join an MLP as a whole: between its leaves every step is row by row too."""
    for name, module in list(skeleton.named_modules()):
        children = list(module.children())
        if not type(module).__name__.endswith("MLP") or not any(
            isinstance(child, ByRole | OnRest) for child in children
        ):
            continue
        constant = not any(parameter.requires_grad for parameter in prefill.parameters())
        own = decode.get_submodule(name)
        whole: nn.Module = (
            OnRest(own, current)
            if last in f"{name}."
            else ByRole(prefill.get_submodule(name), own, current, constant)
        )
        skeleton.set_submodule(name, whole)

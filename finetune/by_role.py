"""One forward for a pair: each token picks its weights by its role.

x_1 ... x_{N-1} run through the prefill module's weights and x_N, y_1 ... y_{T-1} through the decode module's.
Under causal attention a prompt row sees prompt rows only, so its keys and values are those of `C(X)`, and a
later row reads them beside its own: the same numbers as two forwards with a cache between them
(`finetune.cache_conditioned.response_logits`), in one pass without one.

Exact where all weights sit in leaves that compute each row by itself (`finetune.views.leaves`) and both
modules have one architecture; otherwise `merge_roles` raises NotRowWiseError and two forwards remain.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import PreTrainedModel

from finetune.views import NotRowWiseError, leaves, rebuild


@dataclass
class Roles:
    """Flat indices `[rows]` into `[batch * length]` of the batch that runs now.

    `order` puts the rows of the prefill module first, `num_prefill` of them; `back` undoes it.
    """

    order: Tensor
    back: Tensor
    num_prefill: int
    predict: Tensor

    @classmethod
    def of(cls, is_prefill: Tensor, predicts: Tensor) -> "Roles":
        """From masks `[batch, length]`: rows of the prefill module, rows that predict a response."""
        flat = is_prefill.reshape(-1)
        order = torch.cat([flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(flat), device=flat.device)
        return cls(order, back, int(flat.sum()), predicts.reshape(-1).nonzero()[:, 0])


class _Permute(torch.autograd.Function):
    """Rows in another order. Its gradient is a gather too; that of indexing is a much slower scatter."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0].index_select(0, back), None, None


def _permute(rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
    permuted: Tensor = _Permute.apply(rows, order, back)  # type: ignore[no-untyped-call]
    return permuted


@dataclass
class Current:
    """The roles of the running batch; all leaves of one skeleton hold the same object."""

    roles: Roles | None = None


class ByRole(nn.Module):
    """A leaf that sends each row through the prefill's or the decode's leaf."""

    def __init__(self, prefill: nn.Module, decode: nn.Module, current: Current, constant: bool) -> None:
        super().__init__()
        self.prefill, self.decode = prefill, decode
        self._current, self._constant = current, constant

    def forward(self, rows: Tensor) -> Tensor:
        """`[batch, length, ...]` to `[batch, length, ...]`; prompt rows carry no gradient if constant."""
        roles = self._current.roles
        assert roles is not None, "a skeleton runs through PairForward only"
        sorted_rows = _permute(rows.flatten(0, 1), roles.order, roles.back)
        prompt, rest = sorted_rows.tensor_split([roles.num_prefill])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._constant):
            written = self.prefill(prompt)
        both = _permute(torch.cat([written, self.decode(rest)]), roles.back, roles.order)
        return both.view(*rows.shape[:2], *both.shape[1:])


class OnPredictions(nn.Module):
    """The output head, run where a response token is predicted: `[batch, length, hidden]` to `[R, vocab]`."""

    def __init__(self, head: nn.Module, current: Current) -> None:
        super().__init__()
        self.head, self._current = head, current

    def forward(self, rows: Tensor) -> Tensor:
        roles = self._current.roles
        assert roles is not None, "a skeleton runs through PairForward only"
        logits: Tensor = self.head(rows.flatten(0, 1)[roles.predict])
        return logits


def merge_roles(prefill: PreTrainedModel, decode: PreTrainedModel) -> tuple[PreTrainedModel, Current]:
    """A skeleton over the leaves of both, and the handle that tells it the roles of a batch.

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

    def pick(name: str, leaf: nn.Module) -> nn.Module:
        if leaf is head:
            return OnPredictions(leaf, current)
        # One leaf in both roles is called once, on all rows. It is the input's embedding or a frozen norm.
        return leaf if written[name] is leaf else ByRole(written[name], leaf, current, constant)

    return rebuild(decode, pick), current

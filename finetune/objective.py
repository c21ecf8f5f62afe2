"""What a step computes: logits of the response tokens, under each way of sharing.

One `nn.Module` per way, so that Trainer, accelerate and DistributedDataParallel see one model. A batch is
padded on the right; `labels` are the response tokens where they stand, IGNORED elsewhere.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.by_role import Columns, merge_roles
from finetune.cache_conditioned import Batch, TokenPair, collate, response_logits
from finetune.icarus import icarus_logits
from finetune.views import NotRowWiseError
from heliostat.errors import HeliostatError

IGNORED = -100


def collate_right(pairs: Sequence[TokenPair], pad_token_id: int) -> dict[str, Tensor]:
    """`input_ids` and `labels`, int64 `[batch, length]`: prompts, responses, padding on the right."""
    length = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = torch.full((len(pairs), length), pad_token_id)
    labels = torch.full((len(pairs), length), IGNORED)
    for row, (prompt, response) in enumerate(pairs):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        labels[row, len(prompt) : end] = torch.tensor(response)
    return {"input_ids": ids, "labels": labels}


class Objective(nn.Module):
    """The trained and the frozen module, and the forward that joins them.

    `forward` returns float logits `[R, vocabulary]` for the R labels of the batch, in row-major order.
    """

    # Trainer then hands the number of labels of the whole accumulated batch to compute_loss.
    accepts_loss_kwargs = True

    def __init__(self, prefill: PreTrainedModel, decode: PreTrainedModel) -> None:
        super().__init__()
        self.prefill, self.decode = prefill, decode

    @property
    def way(self) -> str:
        """How the logits are computed, for people."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Only what trains leaves eval mode: the frozen side computes what it computes when it serves."""
        super().train(mode)
        for module in (self.prefill, self.decode):
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()
        return self

    def checkpoint_gradients(self) -> None:
        """Keep fewer activations and compute them again. Raises HeliostatError where a cache forbids it."""
        raise HeliostatError(
            f"--gradient-checkpointing needs one forward, here are {self.way}; lower --batch-size"
        )


class OneForward(Objective):
    """Prompt and response in one pass; every token picks its weights by role."""

    def __init__(self, prefill: PreTrainedModel, decode: PreTrainedModel) -> None:
        super().__init__(prefill, decode)
        skeleton, self._current = merge_roles(prefill, decode)
        # In a tuple, so that weights are registered once: under `prefill` and `decode`.
        self._skeleton = (skeleton,)

    @property
    def way(self) -> str:
        return "one forward, weights by role"

    def train(self, mode: bool = True) -> Self:
        # The skeleton first: it shares its leaves, whose mode the two modules then set.
        self._skeleton[0].train(mode)
        super().train(mode)
        return self

    def checkpoint_gradients(self) -> None:
        self._skeleton[0].gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        # Position t predicts t + 1; x_N is the first one that predicts a label.
        columns = Columns.of(labels[:, 1:] != IGNORED)
        self._current.columns = columns
        output = self._skeleton[0](
            input_ids=input_ids.gather(1, columns.source),
            attention_mask=columns.real.long(),
            position_ids=columns.source,
            use_cache=False,
        )
        self._current.forget()
        logits: Tensor = output.logits
        return logits


class TwoForwards(Objective):
    """The prefill module's pass, its cache into the decode module's pass: right for every architecture."""

    def __init__(self, prefill: PreTrainedModel, decode: PreTrainedModel, why: str) -> None:
        super().__init__(prefill, decode)
        self._why = why

    @property
    def way(self) -> str:
        return f"two forwards ({self._why})"

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        batch = split_roles(input_ids, labels)
        return response_logits(self.prefill, self.decode, batch)[batch.response_mask.bool()]


class Icarus(Objective):
    """`prefill` is the base, which writes all KV; `decode` the base under its adapter, which only reads."""

    @property
    def way(self) -> str:
        return "two streams, one writer"

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        batch = split_roles(input_ids, labels)
        return icarus_logits(self.prefill, self.decode, batch)[batch.response_mask.bool()]


def shared_objective(prefill: PreTrainedModel, decode: PreTrainedModel, one: bool = True) -> Objective:
    """One forward where that is exact and asked for, two otherwise."""
    if not one:
        return TwoForwards(prefill, decode, "as asked")
    try:
        return OneForward(prefill, decode)
    except NotRowWiseError as error:
        return TwoForwards(prefill, decode, str(error))


def split_roles(input_ids: Tensor, labels: Tensor) -> Batch:
    """The same batch with prompts padded on the left, as the two-forward form wants it."""
    pairs: list[TokenPair] = []
    for ids, row in zip(input_ids.tolist(), labels.tolist(), strict=True):
        response = [label for label in row if label != IGNORED]
        start = next(position for position, label in enumerate(row) if label != IGNORED)
        pairs.append((ids[:start], response))
    batch = collate(pairs, 0)
    return Batch(*(part.to(input_ids.device) for part in batch))

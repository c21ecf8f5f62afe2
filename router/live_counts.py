"""What `/status` says of a model at this moment: admission's counts beside those of the books."""

from typing import Protocol

from heliostat.status import LiveCounts, ModelStatus
from router.admission import ModelCounts


class AdmissionCounts(Protocol):
    """What is read of `router.admission.Admission`."""

    def counts(self, model: str) -> ModelCounts:
        """Its numbers."""


def with_live(models: tuple[ModelStatus, ...], admission: AdmissionCounts) -> tuple[ModelStatus, ...]:
    """The same models, each with its live counts."""
    return tuple(model.model_copy(update={"live": _live(admission.counts(model.name))}) for model in models)


def _live(counts: ModelCounts) -> LiveCounts:
    return LiveCounts(
        queued=counts.queued,
        running=counts.running,
        admitted=counts.admitted,
        refused=sum(counts.refused.values()),
        prompt_tokens=counts.prompt_tokens,
        output_tokens=counts.output_tokens,
    )

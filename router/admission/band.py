"""One band of priority: virtual token counters decide which model is next."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from router.admission.slot import Slot


@dataclass(slots=True, eq=False)
class Waiting:
    """One request in the queue, with the slot that it would get. Times are the clock's seconds."""

    slot: Slot
    arrived_at_s: float
    deadline_at_s: float
    patience_s: float
    number: int = field(default=-1)
    """The order of arrival; -1 outside of the queue."""

    @property
    def model(self) -> str:
        """The model's name."""
        return self.slot.model

    def is_old(self, now_s: float) -> bool:
        """Whether its patience is over."""
        return now_s - self.arrived_at_s >= self.patience_s


class Band:
    """The models of a pool that wait with one priority, and what they were served.

    A counter holds tokens served over the model's weight. `_virtual` is the counter of the model that was
    granted last, which was the smallest of those in the contest. A model is lifted to it when it begins to
    wait, and when its own limit kept it out of a contest: neither idling nor a limit earns credit.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._counters = dict.fromkeys(weights, 0.0)
        self._virtual = 0.0
        # Ordered dictionaries: any request leaves in O(1), and the first is found in O(1) afterwards.
        self._lines: dict[str, OrderedDict[Waiting, None]] = {}

    def add_model(self, model: str) -> None:
        """One more model. It was served nothing, but is lifted as all others are when it begins to wait."""
        self._counters.setdefault(model, 0.0)

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._lines)

    def counter(self, model: str) -> float:
        """What the model was served, in weighted tokens."""
        return self._counters[model]

    def charge(self, model: str, prompt_tokens: int, output_tokens: int) -> None:
        """The model was served, or will be; a negative charge takes back what did not come.

        An output token costs a step, a prompt token a part of one: 2 to 1.
        """
        self._counters[model] += (prompt_tokens + 2 * output_tokens) / self._weights[model]

    def push(self, waiting: Waiting) -> None:
        """One more request waits."""
        if waiting.model not in self._lines:
            self._lines[waiting.model] = OrderedDict()
            self._lift(waiting.model)
        self._lines[waiting.model][waiting] = None

    def remove(self, waiting: Waiting) -> None:
        """The request does not wait any more."""
        line = self._lines[waiting.model]
        del line[waiting]
        if not line:
            del self._lines[waiting.model]

    def competes(self, may_run: Callable[[str], bool]) -> bool:
        """Whether a model waits that may run."""
        return any(may_run(model) for model in self._lines)

    def in_order(self, may_run: Callable[[str], bool]) -> list[Waiting]:
        """The first request of each model that may run, the least served model first."""
        heads = [next(iter(line)) for model, line in self._lines.items() if may_run(model)]
        return sorted(heads, key=lambda waiting: (self._counters[waiting.model], waiting.number))

    def granted(self, waiting: Waiting, may_run: Callable[[str], bool]) -> None:
        """The request got a slot; it has been removed."""
        self._virtual = max(self._virtual, self._counters[waiting.model])
        for model in self._lines:
            if not may_run(model):
                self._lift(model)

    def _lift(self, model: str) -> None:
        self._counters[model] = max(self._counters[model], self._virtual)

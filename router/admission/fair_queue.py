"""Who is next for a decode slot: virtual token counters, in bands of priority.

Each model has a counter of the tokens that it was served, divided by its weight; the waiting model with
the smallest counter is next (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). Within
a model, first come is first served. Three rules stand around it:

- **Bands.** A lower priority value goes first, whatever the counters say; values beyond ±8 count as ±8.
  Each band has its own counters: a model that was passed over by priority has no claim on its own band.
- **Ageing.** Every 4th grant goes to a band below, the one with the oldest first request, if that has
  waited for its patience. So a flood of urgent requests leaves a quarter of the slots to others; and
  under an overload in which everything grows old, priorities still mean something.
- **Large requests.** One that is next and finds too little KV is passed over, until its patience is over.
  Then it reserves: nothing else is granted in this pool until it fits, or leaves at its deadline.

A grant costs O(models log models) per band, whatever the number of requests; pushing one O(log requests).
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping

from router.admission.band import Band, Waiting

LOWEST_BAND = 8
LOWER_BANDS_EVERY = 4


class FairQueue:
    """The queue of one decode pool. It knows no clock and no slots: its owner asks with both."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights`: each model's share, against the others'."""
        self._weights = dict(weights)
        self._queued = dict.fromkeys(weights, 0)
        self._bands: dict[int, Band] = {}
        self._deadlines: list[tuple[float, int, Waiting]] = []
        self._numbers = itertools.count()
        self._in_a_row = 0  # grants to the most urgent band, since one below it had its turn
        self._reserved: Waiting | None = None
        self._length = 0

    def add_model(self, model: str, weight: float) -> None:
        """One more model may wait here. A name that was here before comes back with its old counter."""
        self._weights[model] = weight
        self._queued.setdefault(model, 0)
        for band in self._bands.values():
            band.add_model(model)

    def remove_model(self, model: str) -> list[Waiting]:
        """The model may not wait any more; takes out its requests that do."""
        left = [waiting for *_, waiting in self._deadlines if waiting in self and waiting.model == model]
        for waiting in left:
            self.remove(waiting)
        return left

    def __len__(self) -> int:
        return self._length

    def __contains__(self, waiting: Waiting) -> bool:
        return waiting.number >= 0

    def queued(self, model: str) -> int:
        """Requests of the model that wait."""
        return self._queued[model]

    def share(self, model: str) -> float:
        """The part of the grants, 0 to 1, that the model may expect if it waits now."""
        weights = (self._weights[name] for name, queued in self._queued.items() if queued or name == model)
        return self._weights[model] / sum(weights)

    def counter(self, model: str, priority: int = 0) -> float:
        """What the model was served in the band of that priority, in weighted tokens."""
        return self._band(priority).counter(model)

    def charge(self, model: str, priority: int, *, prompt_tokens: int = 0, output_tokens: int = 0) -> None:
        """A request of that model and priority was served so much."""
        self._band(priority).charge(model, prompt_tokens, output_tokens)

    def push(self, waiting: Waiting) -> None:
        """One more request waits."""
        waiting.number = next(self._numbers)
        self._band(waiting.slot.priority).push(waiting)
        self._queued[waiting.model] += 1
        self._length += 1
        if len(self._deadlines) > 2 * self._length + 64:  # most of these have left
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (waiting.deadline_at_s, waiting.number, waiting))

    def remove(self, waiting: Waiting) -> None:
        """The request does not wait any more; twice is once."""
        if waiting not in self:
            return
        self._band(waiting.slot.priority).remove(waiting)
        waiting.number = -1
        self._queued[waiting.model] -= 1
        self._length -= 1
        if self._reserved is waiting:
            self._reserved = None

    def remove_expired(self, now_s: float) -> list[Waiting]:
        """Take out every request whose deadline has passed."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            waiting = heapq.heappop(self._deadlines)[2]
            if waiting in self:
                self.remove(waiting)
                expired.append(waiting)
        return expired

    def take(
        self, now_s: float, may_run: Callable[[str], bool], fits: Callable[[int], bool]
    ) -> Waiting | None:
        """Take out the request that gets a free slot; None: nobody can use it now.

        `may_run(model)` says whether the model's own limits allow one more, `fits(tokens)` whether there
        is KV for a request.
        """
        for waiting in self._in_order(now_s, may_run):
            if fits(waiting.slot.claim):
                self._granted(waiting, may_run)
                return waiting
            if waiting.is_old(now_s):
                self._reserved = waiting
                return None
        return None

    def _in_order(self, now_s: float, may_run: Callable[[str], bool]) -> Iterator[Waiting]:
        """The first request of each model and band, in the order in which they are to be granted."""
        if self._reserved is not None and may_run(self._reserved.model):
            yield self._reserved
            return
        bands = [self._bands[number].in_order(may_run) for number in sorted(self._bands)]
        bands = [band for band in bands if band]
        if self._in_a_row >= LOWER_BANDS_EVERY - 1:
            for band in sorted(bands[1:], key=lambda band: min(waiting.arrived_at_s for waiting in band)):
                yield from (waiting for waiting in band if waiting.is_old(now_s))
        for band in bands:
            yield from band

    def _granted(self, waiting: Waiting, may_run: Callable[[str], bool]) -> None:
        self.remove(waiting)
        granted = self._band(waiting.slot.priority)
        granted.granted(waiting, may_run)
        number = self._number(waiting.slot.priority)
        top = not any(band.competes(may_run) for other, band in self._bands.items() if other < number)
        below = any(band for other, band in self._bands.items() if other > number)
        self._in_a_row = self._in_a_row + 1 if top and below else 0

    def _band(self, priority: int) -> Band:
        number = self._number(priority)
        if number not in self._bands:
            self._bands[number] = Band(self._weights)
        return self._bands[number]

    @staticmethod
    def _number(priority: int) -> int:
        return max(-LOWEST_BAND, min(LOWEST_BAND, priority))

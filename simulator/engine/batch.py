"""The requests of one replica that decode together: each step gives everybody one token.

So nobody is touched by a step: what a request has follows from the step at which it joined, and who leaves
next is the front of a heap.
"""

import heapq
from collections.abc import Iterator

from simulator.engine.job import Job


class Batch:
    """Counts in steps since the replica was made. `context`: tokens of KV at the last boundary."""

    __slots__ = ("_entries", "_step", "context")

    def __init__(self) -> None:
        self.context = 0
        self._step = 0
        self._entries: list[tuple[int, int, Job]] = []  # a heap by the step of the last token

    def __len__(self) -> int:
        """Decode rows of a step."""
        return len(self._entries)

    @property
    def steps_left(self) -> int:
        """Until the first one has its last token. Somebody has to be in the batch."""
        return self._entries[0][0] - self._step

    def join(self, job: Job) -> None:
        """Has a token at the end of every step from now on."""
        job.joined_step = self._step
        self.context += job.context
        heapq.heappush(self._entries, (self._step + job.output_tokens - job.generated, job.order, job))

    def advance(self, steps: int) -> list[Job]:
        """So many steps are over. Returns those who have their last token, and are out."""
        entries, over = self._entries, []
        self._step += steps
        self.context += steps * len(entries)
        while entries and entries[0][0] <= self._step:
            over.append(self._settle(heapq.heappop(entries)[2]))
        return over

    def drop_newest(self) -> Job:
        """The one who was submitted last is out, with what it has."""
        entry = max(self._entries, key=lambda entry: entry[1])
        self._entries.remove(entry)
        heapq.heapify(self._entries)
        return self._settle(entry[2])

    def generated(self, steps: int) -> Iterator[tuple[Job, int]]:
        """Everybody's output tokens, so many steps after the last boundary."""
        now = self._step + steps
        for _, _, job in self._entries:
            yield job, job.generated + now - job.joined_step

    def _settle(self, job: Job) -> Job:
        """Books what it has grown by, and takes it out of the context."""
        steps = self._step - job.joined_step
        job.generated += steps
        job.private += steps
        self.context -= job.context
        return job

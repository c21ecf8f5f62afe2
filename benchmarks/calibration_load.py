"""The same closed loop twice: offered to a real cluster, and as a workload of the simulator."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.load import Answer, CompletionClient, LoadRequest
from simulator.workload.base import Call, Session

BLOCK_TOKENS = 32
"""`family.block_size` of the measured spec."""

LONGEST_S = 600.0
"""No load takes longer, real or virtual; the simulator cuts off what does."""


def split(requests: Sequence[LoadRequest], streams: int) -> list[list[LoadRequest]]:
    """Who sends what: fixed beforehand, so that the simulated streams send the very same."""
    return [list(requests[stream::streams]) for stream in range(streams)]


async def fixed_streams(
    client: CompletionClient, requests: Sequence[LoadRequest], *, streams: int
) -> list[Answer]:
    """Each stream sends its own requests, one after the other (`split`)."""

    async def run(mine: Sequence[LoadRequest]) -> list[Answer]:
        return [await client.complete(request) for request in mine]

    answers = await asyncio.gather(*(run(mine) for mine in split(requests, streams)))
    return [answer for stream in answers for answer in stream]


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`simulator.workload.base.Workload`: the same streams as sessions of calls without a pause.

    A letter of a prompt is a token (`random_letters`), and no two prompts have the same beginning.
    """

    requests: tuple[LoadRequest, ...]
    streams: int
    models: tuple[str, ...]
    block_tokens: int = BLOCK_TOKENS
    duration_s: float = LONGEST_S

    @property
    def description(self) -> str:
        return f"{self.streams} streams, {len(self.requests)} requests"

    def sessions(self, seed: int) -> Iterator[Session]:
        name = 0
        for number, mine in enumerate(split(self.requests, self.streams)):
            calls = []
            for request in mine:
                tokens = len(request.prompt)
                blocks = -(-tokens // self.block_tokens)
                calls.append(
                    Call(request.model, tokens, request.max_tokens, tuple(range(name, name + blocks)))
                )
                name += blocks
            yield Session(f"stream {number}", 0.0, tuple(calls))

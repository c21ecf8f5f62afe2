"""One request of a benchmark: sent over the SDK, and what became of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import httpx

from cluster.answer_times import AnswerTimes
from cluster.bench_requests import Planned
from cluster.bench_tokenize import Api
from cluster.dialect import Dialect
from heliostat import headers
from heliostat.client import AsyncClient, AsyncStream, ChatOptions, CompletionOptions, Hints, Usage
from heliostat.errors import HeliostatError, RequestError, StreamBrokenError, TimedOutError

SHOWN = 300
"""Characters of why a request failed: a proxy may answer with a whole page."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request got no whole answer; `status` is 0 where no server said anything."""

    kind: str
    status: int
    message: str


NO_TOKEN = Failure("NoToken", 0, "the stream ended, and no token had come")
"""An overloaded proxy ends a stream so; as an answer it would be the fastest of all."""


@dataclass(frozen=True, slots=True)
class Record:
    """A request that is over. Stamps are seconds of one monotonic clock.

    `sent_s` is when it left this program, `times.due_s` when it should have. `tells`: a Heliostat cluster
    answered, so that 0 cached tokens are none, and not an unknown number.
    """

    model: str
    sent_s: float
    ended_s: float
    times: AnswerTimes
    usage: Usage = field(default_factory=Usage)
    tells: bool = False
    failure: Failure | None = None

    @property
    def counted(self) -> bool:
        """The server has counted the tokens; else each piece counts as one."""
        return self.usage.output_tokens > 0

    @property
    def output_tokens(self) -> int:
        return self.usage.output_tokens if self.counted else self.times.pieces

    @property
    def ttft_ms(self) -> float | None:
        return self.times.ttft_ms

    @property
    def tpot_ms(self) -> float | None:
        return self.times.tpot_ms(self.output_tokens)

    @property
    def e2e_ms(self) -> float | None:
        return self.times.e2e_ms

    @property
    def late_ms(self) -> float:
        """How much later than due it was sent: this program's own doing."""
        return (self.sent_s - self.times.due_s) * 1000


@dataclass(frozen=True, slots=True)
class Asking:
    """How all requests are asked. `extra_body`: further keys of each."""

    api: Api
    output_tokens: int
    dialect: Dialect = field(default_factory=Dialect)
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def options(self, planned: Planned) -> ChatOptions:
        """A session's requests come with its name, and with the hint that its beginning comes again."""
        options = ChatOptions(max_tokens=self.output_tokens, temperature=0)
        if self.extra_body:
            options["extra_body"] = self.extra_body
        if planned.session:
            options["extra_headers"] = {headers.SESSION: planned.session}
            options["hints"] = Hints(reuse_soon=True)
        return self.dialect.said(options)


class Sender:
    """Sends requests, and hands each to `record` when it is over. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        client: AsyncClient,
        asking: Asking,
        record: Callable[[Record], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.sent = 0
        self._clock = clock
        self._client, self._asking, self._record = client, asking, record

    def clock(self) -> float:
        """Seconds, monotonic."""
        return self._clock()

    async def send(self, planned: Planned, due_s: float | None = None) -> None:
        """It was due then, by default now. A failure is recorded; only cancelling leaves no record."""
        sent_s = self.clock()
        times = AnswerTimes(sent_s if due_s is None else due_s)
        self.sent += 1
        usage, tells = Usage(), False
        failure: Failure | None = None
        try:
            async with self.open(planned) as stream:
                async for piece in stream:
                    times.note(piece, self.clock())
            usage, tells = stream.answer.usage, bool(stream.answer.served_by.decode)
        except HeliostatError as error:
            failure = _failure(error)
        if failure is None and times.first_s is None:
            failure = NO_TOKEN
        self._record(Record(planned.model, sent_s, self.clock(), times, usage, tells, failure))

    def open(self, planned: Planned) -> AsyncStream:
        """For `async with`."""
        options = self._asking.options(planned)
        if self._asking.api == "chat":
            return self._client.stream_chat(planned.model, planned.said, **options)
        told = cast(CompletionOptions, cast(Mapping[str, object], options))
        return self._client.stream_complete(planned.model, cast(str, planned.said), **told)


def _failure(error: HeliostatError) -> Failure:
    kind, said = type(error).__name__, str(error)
    if isinstance(error, StreamBrokenError):
        # What had come of an answer is long, and says nothing of why it broke off.
        said = f"{error.message}; {len(error.text)} characters had come"
        if isinstance(error.__cause__, TimeoutError | httpx.TimeoutException):
            kind = TimedOutError.__name__
    status = error.status if isinstance(error, RequestError) else 0
    line = " ".join(said.split())
    return Failure(kind, status, line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…")

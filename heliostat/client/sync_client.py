"""The client whose calls block."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import httpx

from heliostat.client.answer import Answer, ModelCard
from heliostat.client.call import Call, Rules
from heliostat.client.context import ContextState, opening
from heliostat.client.hints import NO_HINTS, Hints
from heliostat.client.messages import Messages
from heliostat.client.options import ChatOptions, CompletionOptions, Prompt
from heliostat.client.patience import Patience, make_patient
from heliostat.client.reading import AnswerReader, read_models, read_status
from heliostat.client.requests import MODELS_PATH, STATUS_PATH, Request, chat_request, completion_request
from heliostat.client.retry import DEFAULT_BACKOFF, Backoff
from heliostat.client.settings import headers_of, limits, new_session, root_of
from heliostat.client.sync_context import Context
from heliostat.client.sync_stream import Begin, Stream
from heliostat.errors import HeliostatError, RequestError, StreamBrokenError

if TYPE_CHECKING:
    from heliostat.status import ClusterStatus


class Client:
    """Asks a Heliostat cluster, or any other server that speaks OpenAI's protocol.

    `base_url` is the server's root; a key that is not given is HELIOSTAT_API_KEY's. `timeout_s` is for
    connecting, and between two reads of a stream; `answer_timeout_s` is for an answer to begin where there is
    no deadline. A request that got no answer is sent again up to `max_retries` times. `deadline_s` is that of
    requests whose hints name none. `transport` is httpx's. Time and randomness are parameters: `clock` is
    monotonic, `wall_clock` Unix time, `random` gives 0 to 1.

    Every call raises a HeliostatError: a RequestError with what the server said, or a ClientError. One
    client serves many threads.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        answer_timeout_s: float = 600.0,
        max_retries: int = 2,
        deadline_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        backoff: Backoff = DEFAULT_BACKOFF,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises HeliostatError for a `base_url` that is no address, and for a setting that cannot be."""
        root, times = root_of(base_url), (timeout_s, answer_timeout_s)
        self._rules = Rules(root, *times, max_retries, deadline_s, backoff, clock, wall_clock, random)
        self._sleep = sleep
        self._http = httpx.Client(headers=headers_of(api_key, headers), transport=transport, limits=limits())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """All connections."""
        self._http.close()

    def chat(self, model: str, messages: Messages, **options: Unpack[ChatOptions]) -> Answer:
        """The whole answer to a text, a message, or several."""
        return self._answer(chat_request(model, messages, False, options))

    def complete(self, model: str, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Answer:
        """The whole completion of a text, or of token ids."""
        return self._answer(completion_request(model, prompt, False, options))

    def stream_chat(self, model: str, messages: Messages, **options: Unpack[ChatOptions]) -> Stream:
        """For `with`: a chat's answer in pieces."""
        return self._stream(chat_request(model, messages, True, options))

    def stream_complete(self, model: str, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Stream:
        """For `with`: a completion in pieces."""
        return self._stream(completion_request(model, prompt, True, options))

    def models(self) -> tuple[ModelCard, ...]:
        """What the server serves."""
        call = self._call(Request("GET", MODELS_PATH))
        return read_models((self._exchange(call)).content, call.where)

    def status(self) -> "ClusterStatus":
        """A Heliostat cluster's pools, replicas and models, as the router that answers sees them."""
        call = self._call(Request("GET", STATUS_PATH))
        return read_status((self._exchange(call)).content, call.where)

    def context(
        self, *, system: str = "", documents: Sequence[str] = (), session: str = "", hints: Hints = NO_HINTS
    ) -> Context:
        """What several models are asked over: it opens with one system message, the documents in it.

        `session` names it to the server, by chance if empty. `hints` are those of requests that give none.
        """
        state = ContextState(opening(system, documents), session or new_session(), hints)
        return Context(state, self._answer, self._stream)

    def _answer(self, request: Request) -> Answer:
        call = self._call(request)
        response = self._exchange(call)
        return AnswerReader(response.headers, call.where).whole(response.content)

    def _stream(self, request: Request, when_done: Callable[[Answer], None] | None = None) -> Stream:
        return Stream(lambda: self._call(request), self._exchange, when_done)

    def _call(self, request: Request) -> Call:
        return Call(request, self._rules)

    def _exchange(self, call: Call, begin: Begin = httpx.Response.read) -> httpx.Response:
        """A successful response whose answer has begun: `begin` has read as much of it."""
        while True:
            told = call.begin()
            try:
                with ExitStack() as unless_begun:
                    response = self._send(call, told)
                    unless_begun.callback(response.close)
                    if response.status_code == httpx.codes.OK:
                        begin(response)
                        unless_begun.pop_all()
                        return response
                    response.read()
            except TimeoutError as error:
                raise call.expired() from error
            except httpx.RequestError as error:
                wait_s = call.broke(error)
            except (RequestError, StreamBrokenError) as error:
                wait_s = call.failed(error)
            else:
                wait_s = call.refused(response.status_code, response.headers, response.content)
            self._sleep(wait_s)

    def _send(self, call: Call, told: Mapping[str, str]) -> httpx.Response:
        if self._http.is_closed:
            raise HeliostatError(f"{call.where} is asked by a client that is closed; make another one")
        sent = call.request
        request = self._http.build_request(
            sent.method, call.where, content=sent.body or None, headers=told, timeout=call.step_s()
        )
        timeouts = request.extensions["timeout"]
        timeouts["read"] = Patience(call.read_s)

        def trace(event: str, info: Mapping[str, object]) -> None:
            # Connecting and writing have a timeout each, and the deadline is for both together.
            if event.endswith(".send_request_headers.started"):
                timeouts["write"] = call.step_s()
            make_patient(event, info)

        request.extensions["trace"] = trace
        return self._http.send(request, stream=True)

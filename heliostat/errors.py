"""Every error that Heliostat raises on purpose.

    HeliostatError
    ├── SpecError               the spec file is wrong (file, line, key, value, remedy)
    ├── ContractError           two modules cannot exchange KV caches (the first field that differs)
    ├── EngineStartError        the engine of a replica did not start
    ├── RequestError            one request cannot be served; carries its HTTP status
    │   ├── InvalidRequestError     400: the request itself is wrong
    │   ├── UnauthorizedError       401: the request carries no valid API key
    │   ├── ModelChangesOffError    403: the spec does not let models come and go
    │   ├── UnknownModelError       404: no model of that name is served
    │   ├── ModelExistsError        409: the name stands for a model already
    │   ├── RequestTooLargeError    413: the body exceeds the limit
    │   ├── OverloadedError         429: a limit of the model or a pool is reached; carries Retry-After
    │   ├── PoolUnavailableError    503: a pool has no replica that answers
    │   ├── OtherStatusError        500: a client got a status that it has no class for; `status` says which
    │   └── LegFailedError          500: a leg failed on its replica
    │       ├── PrefillFailedError      the prefill leg failed
    │       ├── HandoffFailedError      the prompt's KV did not arrive, or its tokens broke off
    │       └── VersionsGoneError       nobody is left who may go on with an answer that has begun
    ├── ClientError             what only a client meets: no server said what is wrong
    │   ├── UnreachableError        no connection, or it broke before the answer began
    │   ├── TimedOutError           no byte for too long, or the deadline is over
    │   ├── StreamBrokenError       the answer broke off; carries its text so far
    │   ├── UnexpectedAnswerError   what came is not an OpenAI answer
    │   └── SomeFailedError         of several questions, some were not answered; carries the answers
    └── TransportError          a transport could not put or get KV
        ├── TicketExpiredError      the KV behind a ticket is gone
        ├── KVRefusedError          the KV is of another module, prompt, layout or host
        ├── OwnerLostError          the replica that holds the KV does not answer
        └── NoSpaceError            there is no room to keep the KV

Errors cross process borders (a replica raises, the router answers), so each one is rebuilt from
`args` alone: positional arguments only, all handed to `super().__init__`.
"""

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

Answered = TypeVar("Answered")


class HeliostatError(Exception):
    """The root: catching it catches everything that is raised on purpose."""


class SpecError(HeliostatError):
    """The spec is wrong; one finding per line, each with its place in the file and a remedy.

    A finding begins with its line number (`12: prefill.home: …`), unless it belongs to no line.
    """

    def __init__(self, file: str, findings: tuple[str, ...]) -> None:
        super().__init__(file, findings)
        self.file = file
        self.findings = findings

    def __str__(self) -> str:
        return "\n".join(
            f"{self.file}:{finding}" if finding[:1].isdigit() else f"{self.file}: {finding}"
            for finding in self.findings
        )


class ContractError(HeliostatError):
    """Two modules do not fit each other: `field` is the first difference."""

    def __init__(self, left: str, right: str, field: str, left_value: str, right_value: str) -> None:
        super().__init__(left, right, field, left_value, right_value)
        self.left, self.right, self.field = left, right, field
        self.left_value, self.right_value = left_value, right_value

    def __str__(self) -> str:
        return (
            f"{self.left} and {self.right} cannot exchange KV caches: {self.field} is "
            f"{self.left_value} in the one and {self.right_value} in the other"
        )


class EngineStartError(HeliostatError):
    """The engine of a replica did not start: which pool, the root cause in one line, and its log."""

    def __init__(self, pool: str, cause: str, log: str) -> None:
        super().__init__(pool, cause, log)
        self.pool, self.cause, self.log = pool, cause, log

    def __str__(self) -> str:
        return f"pool {self.pool}: the engine did not start: {self.cause} (log: {self.log})"


class RequestError(HeliostatError):
    """One request cannot be served.

    `status` is its HTTP status; `kind`, `code` and `param` are `type`, `code` and `param` of OpenAI's error
    object: what a client got, or "" where its server says none.
    """

    status: int = 500
    kind: str = ""
    code: str = ""
    param: str = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(RequestError):
    """The request itself is wrong."""

    status = 400


class UnknownModelError(RequestError):
    """No model of that name is served."""

    status = 404


class UnauthorizedError(RequestError):
    """The router wants an API key, and the request carries none of them."""

    status = 401


class ModelChangesOffError(RequestError):
    """The spec does not let models come and go."""

    status = 403


class ModelExistsError(RequestError):
    """The name stands for a model already."""

    status = 409


class RequestTooLargeError(RequestError):
    """The request body exceeds the limit."""

    status = 413


class OverloadedError(RequestError):
    """A limit of the model, or what a pool can take, is reached. `retry_after_s` says when to come back."""

    status = 429

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        HeliostatError.__init__(self, message, retry_after_s)
        self.message, self.retry_after_s = message, retry_after_s

    def __str__(self) -> str:
        return self.message


class PoolUnavailableError(RequestError):
    """A pool has no replica that answers; a later attempt may succeed, in `retry_after_s` if known."""

    status = 503

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        HeliostatError.__init__(self, message, retry_after_s)
        self.message, self.retry_after_s = message, retry_after_s

    def __str__(self) -> str:
        return self.message


class OtherStatusError(RequestError):
    """A client got a status that it has no class for; `status` is the server's. 403 and 409 are among them:
    other servers do not mean by them what ours does.

    A later attempt may succeed in `retry_after_s`, if the server said so.
    """

    def __init__(self, message: str, status: int, retry_after_s: float = 0.0) -> None:
        HeliostatError.__init__(self, message, status, retry_after_s)
        self.message, self.status, self.retry_after_s = message, status, retry_after_s

    def __str__(self) -> str:
        return self.message


class LegFailedError(RequestError):
    """One leg of a request failed; another replica may do it. `replica` is empty when none is to blame.

    `lost`: the replica itself is gone, or does not answer.
    """

    def __init__(self, message: str, replica: str = "", lost: bool = False) -> None:
        HeliostatError.__init__(self, message, replica, lost)
        self.message, self.replica, self.lost = message, replica, lost

    def __str__(self) -> str:
        return self.message


class PrefillFailedError(LegFailedError):
    """The prefill leg failed; no KV of this request exists."""


class HandoffFailedError(LegFailedError):
    """The prompt's KV did not arrive, or its tokens broke off; the decode module never prefills (rule 5)."""


class VersionsGoneError(LegFailedError):
    """An answer has begun, and the versions that began it are gone: other modules must not go on with it."""


class ClientError(HeliostatError):
    """What only a client meets: no server said what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class UnreachableError(ClientError):
    """No connection to the server, or it broke before the answer began."""


class TimedOutError(ClientError):
    """No byte came for too long, or the deadline was over before the answer began."""


class StreamBrokenError(ClientError):
    """The answer broke off. `text` is what had come of it: of its first choice, where it has several."""

    def __init__(self, message: str, text: str = "") -> None:
        HeliostatError.__init__(self, message, text)
        self.message, self.text = message, text

    def __str__(self) -> str:
        return f"{self.message}; {len(self.text)} characters had come: {self.text!r}"


class UnexpectedAnswerError(ClientError):
    """What came is not an OpenAI answer."""


class SomeFailedError(ClientError, Generic[Answered]):
    """Of several questions that were asked at once some were not answered.

    `answers` has those that were (`heliostat.Answer`), `errors` why the others were not; both by the model's
    name, or by the question's place in the sequence.
    """

    def __init__(
        self, answers: Mapping[str | int, Answered], errors: Mapping[str | int, HeliostatError]
    ) -> None:
        HeliostatError.__init__(self, answers, errors)
        self.answers, self.errors = answers, errors

    def __str__(self) -> str:
        told = "; ".join(f"{name}: {error}" for name, error in self.errors.items())
        return f"{len(self.errors)} of {len(self.answers) + len(self.errors)} questions failed: {told}"


class TransportError(HeliostatError):
    """A transport could not put or get KV. `kind` is the class of the failure, as metrics count it."""

    kind: ClassVar[str] = "broken"

    def __init__(self, message: str) -> None:
        super().__init__(message)


class TicketExpiredError(TransportError):
    """The KV behind a ticket is gone: its lease ended, or somebody released it."""

    kind = "expired"


class KVRefusedError(TransportError):
    """There is KV, but not the KV that the ticket stands for, or not within reach."""

    kind = "refused"


class OwnerLostError(TransportError):
    """The replica that holds the KV died or does not answer."""

    kind = "owner_lost"


class NoSpaceError(TransportError):
    """There is no room to keep the KV until somebody fetches it."""

    kind = "no_space"

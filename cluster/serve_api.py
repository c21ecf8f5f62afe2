"""Ray Serve's REST API on a cluster's dashboard: what runs there, and what shall run.

`GET` and `PUT /api/serve/applications/` (Ray 2.60, "Serve REST API"). A `PUT` replaces the whole config: it
deletes every application that an earlier `PUT` made and this one leaves out.
"""

import os
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from heliostat.errors import HeliostatError

PATH = "/api/serve/applications/"
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TIMEOUT_S = 60.0
"""The first `PUT` starts Serve: controller, proxies and HAProxy."""

Answer = TypeVar("Answer")


class _Seen(BaseModel):
    # Later Rays may say more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Replica(_Seen):
    """One replica of a deployment; `state` is Serve's word, such as RUNNING."""

    replica_id: str
    state: str


class Deployment(_Seen):
    """One deployment; `status` is Serve's word, such as HEALTHY, `message` says why."""

    status: str
    message: str = ""
    target_num_replicas: int = 0
    replicas: tuple[Replica, ...] = ()

    def num_running(self) -> int:
        """Replicas that serve now."""
        return sum(replica.state == "RUNNING" for replica in self.replicas)


class Application(_Seen):
    """One application. `config` is what was put for it; None when a program deployed it (`serve.run`)."""

    status: str
    message: str = ""
    source: str = ""
    route_prefix: str | None = None
    deployed_app_config: dict[str, JsonValue] | None = None
    deployments: dict[str, Deployment] = {}

    @property
    def config(self) -> dict[str, JsonValue] | None:
        return self.deployed_app_config if self.source == "declarative" else None


class HttpOptions(_Seen):
    """Where Serve's proxies listen on every node."""

    host: str
    port: int


class Proxy(_Seen):
    """The proxy of one node."""

    node_ip: str | None = None
    status: str = ""


class ServeDetails(_Seen):
    """Everything on one Serve. Without a running Serve, nothing."""

    applications: dict[str, Application] = {}
    http_options: HttpOptions | None = None
    proxies: dict[str, Proxy] = {}
    target_capacity: float | None = None

    @property
    def runs(self) -> bool:
        """Whether Serve itself has been started."""
        return bool(self.proxies)


class ServeApi:
    """One cluster's Serve. All errors are HeliostatError, for people."""

    def __init__(self, address: str, client: httpx.Client | None = None) -> None:
        self._address = _checked(address).rstrip("/")
        self._client = client or httpx.Client(timeout=TIMEOUT_S)

    def details(self) -> ServeDetails:
        """What runs there now."""
        return self._parsed(self._ask("GET"), ServeDetails)

    def put(self, config: dict[str, JsonValue]) -> None:
        """Let Serve run exactly this; it begins at once, and this does not wait for it."""
        self._ask("PUT", config)

    def _ask(self, method: str, body: dict[str, JsonValue] | None = None) -> httpx.Response:
        try:
            answer = self._client.request(method, self._address + PATH, json=body)
            if answer.status_code == httpx.codes.UNAUTHORIZED and (token := _token()):
                self._client.headers["Authorization"] = f"Bearer {token}"
                answer = self._client.request(method, self._address + PATH, json=body)
        except httpx.RemoteProtocolError as error:
            raise HeliostatError(
                f"{self._address} answers, but does not speak HTTP: 6379 is Ray's own port; "
                "name the dashboard, whose port is 8265 unless `ray start` was told another"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HeliostatError(
                f"no answer from a Ray dashboard at {self._address}: {error}; is Ray running there with its "
                "dashboard, and is its port (8265) open to this machine?"
            ) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise HeliostatError(
                f"the Ray cluster at {self._address} wants its token: set RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH, or put it where `ray get-auth-token` looks (~/.ray/auth_token)"
            )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise self._not_a_dashboard()
        if answer.is_error:
            raise HeliostatError(f"Ray Serve at {self._address} refuses: {_reason(answer)}")
        return answer

    def _parsed(self, answer: httpx.Response, kind: type[Answer]) -> Answer:
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError as error:
            raise self._not_a_dashboard() from error

    def _not_a_dashboard(self) -> HeliostatError:
        return HeliostatError(
            f"{self._address} answers, but it is not a Ray dashboard with Serve; its port is 8265 unless "
            "`ray start` was told another (8000 is the models' own)"
        )


def _checked(address: str) -> str:
    """Raises HeliostatError for an address of another kind."""
    if address.startswith(("http://", "https://")):
        return address
    if address.startswith("ray://"):
        raise HeliostatError(
            f"{address} is for Ray's client; name the dashboard: http://HOST:8265, or open a way to it with "
            "`ray dashboard`"
        )
    raise HeliostatError(f"{address} is no address of a Ray dashboard; write http://HOST:8265")


def _token() -> str | None:
    """Ray's token, where Ray itself looks for it; None when there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.expanduser().read_text().strip()
    except OSError:
        return None


def _reason(answer: httpx.Response) -> str:
    """The last line that says something; Serve sends whole stack traces."""
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    return lines[-1] if lines else f"status {answer.status_code}"

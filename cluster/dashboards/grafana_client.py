"""A Grafana over HTTP: the one file that knows the package `grafana-api` (1.0.3).

Grafana's errors become HeliostatError, each with what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaServerError, GrafanaUnauthorizedError
from grafana_api.grafana_face import GrafanaFace
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cluster.dashboards.grafana import Json
from heliostat.errors import HeliostatError

TIMEOUT_S = 10.0
FORBIDDEN, NOT_FOUND = 403, 404


class _Answer(BaseModel):
    # Grafana names its keys in camelCase, and adds some with every release.
    model_config = ConfigDict(frozen=True, extra="ignore")


class DataSource(_Answer):
    """One of Grafana's data sources."""

    uid: str
    name: str
    type: str
    isDefault: bool = False


class Folder(_Answer):
    """One of Grafana's folders."""

    uid: str
    title: str


class _Meta(_Answer):
    folderUid: str = ""


class Stored(_Answer):
    """A dashboard as Grafana keeps it."""

    dashboard: dict[str, object]
    meta: _Meta


class Pushed(_Answer):
    """A dashboard that was just written."""

    version: int


@dataclass(frozen=True, slots=True)
class _Place:
    protocol: str
    host: str
    port: int | None
    prefix: str


class Grafana:
    """The few calls that a push needs. All raise HeliostatError."""

    def __init__(self, url: str, token: str) -> None:
        """Asks whether a Grafana is there at all."""
        self.url = url.rstrip("/")
        place = _place(self.url)
        self._check_is_grafana()
        self._face = GrafanaFace(
            auth=token,
            host=place.host,
            port=place.port,
            url_path_prefix=place.prefix,
            protocol=place.protocol,
            timeout=TIMEOUT_S,
        )

    def _check_is_grafana(self) -> None:
        """Without a token: its health says what it is."""
        try:
            health = httpx.get(f"{self.url}/api/health", timeout=TIMEOUT_S, follow_redirects=True)
            known = health.is_success and "database" in health.json()
            if known and health.history:
                # A redirected POST becomes a GET.
                there = str(health.url).removesuffix("/api/health")
                raise HeliostatError(f"{self.url} redirects to {there}: say --grafana {there}")
        except httpx.HTTPError as error:
            raise HeliostatError(f"no answer from {self.url}: {error}; is that Grafana's address?") from error
        except ValueError:
            known = False
        if not known:
            raise HeliostatError(
                f"{self.url} answers, but not as a Grafana does (/api/health: status {health.status_code}); "
                "give the address that you open in the browser, with its path if it has one"
            )

    def data_sources(self) -> list[DataSource]:
        """All of them."""
        with self._errors("read the data sources", "datasources:read"):
            return TypeAdapter(list[DataSource]).validate_python(self._face.datasource.list_datasources())

    def folders(self) -> list[Folder]:
        """All that the token may see."""
        with self._errors("read the folders", "folders:read"):
            return TypeAdapter(list[Folder]).validate_python(self._face.folder.get_all_folders())

    def create_folder(self, title: str) -> Folder:
        """A new one."""
        with self._errors(f"make the folder {title}", "folders:create"):
            return Folder.model_validate(self._face.folder.create_folder(title))

    def dashboard(self, uid: str) -> Stored | None:
        """None when there is none."""
        with self._errors("read the dashboard", "dashboards:read"):
            try:
                return Stored.model_validate(self._face.dashboard.get_dashboard(uid))
            except GrafanaClientError as error:
                if error.status_code == NOT_FOUND:
                    return None
                raise

    def push(self, dashboard: Json, folder_uid: str, message: str) -> Pushed:
        """Create it, or put it over the one with the same `uid`."""
        body = {"dashboard": dashboard, "folderUid": folder_uid, "overwrite": True, "message": message}
        with self._errors("write the dashboard", "dashboards:create and dashboards:write"):
            return Pushed.model_validate(self._face.dashboard.update_dashboard(body))

    @contextmanager
    def _errors(self, action: str, permission: str) -> Iterator[None]:
        try:
            yield
        except GrafanaUnauthorizedError as error:
            raise HeliostatError(
                f"{self.url} does not accept the token (401); make one under Administration, Service accounts"
            ) from error
        except GrafanaClientError as error:
            if error.status_code == FORBIDDEN:
                remedy = f"the token's service account needs {permission}: the role Editor has it"
                raise HeliostatError(f"{self.url}: may not {action} (403); {remedy}") from error
            raise HeliostatError(f"{self.url}: cannot {action}: {error.message}") from error
        except GrafanaServerError as error:
            raise HeliostatError(f"{self.url}: cannot {action}: {error.message}") from error
        except requests.RequestException as error:
            raise HeliostatError(f"{self.url}: cannot {action}: {error}") from error
        except ValidationError as error:
            raise HeliostatError(f"{self.url}: cannot {action}: an answer that no Grafana gives") from error


def _place(url: str) -> _Place:
    """As `GrafanaFace` wants it. Raises HeliostatError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise HeliostatError(f"--grafana {url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HeliostatError(f"--grafana {url} is not an address; give one like http://grafana:3000")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
    return _Place(parts.scheme, host, port, prefix)

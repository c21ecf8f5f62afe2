"""The real Helm engine against a recording API server (`recording_api.py`)."""

import asyncio
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "heliostat"
EXAMPLES = ROOT / "helm" / "examples"
NAMESPACE = "serving"

Object = dict[str, Any]


def _recording_api() -> Any:
    """Tests are no package, so the module beside this one has to be loaded by its path."""
    name = "tests_helm_recording_api"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("recording_api.py"))
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Helm:
    """The real engine on a chart, against the API server at `url`."""

    def __init__(self, url: str, cluster: Any) -> None:
        import helm_sdkpy

        self._sdk = helm_sdkpy
        self.cluster = cluster
        user = {"name": "test", "user": {}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [user],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self._config = helm_sdkpy.Configuration(namespace=NAMESPACE, kubeconfig=yaml.safe_dump(config))

    def install(self, values: Object, release: str = "prod") -> Object:
        return asyncio.run(
            self._sdk.Install(self._config).run(release, str(CHART), values=values, wait=False, timeout=30)
        )

    def upgrade(self, values: Object, release: str = "prod") -> Object:
        return asyncio.run(
            self._sdk.Upgrade(self._config).run(release, str(CHART), values=values, wait=False, timeout=30)
        )

    def test(self, release: str = "prod") -> Object:
        return asyncio.run(self._sdk.Test(self._config).run(release))

    def uninstall(self, release: str = "prod") -> Object:
        return asyncio.run(self._sdk.Uninstall(self._config).run(release, wait=False, timeout=30))

    def lint(self, chart: Path) -> Object:
        return asyncio.run(self._sdk.Lint(self._config).run(str(chart)))


@pytest.fixture
def helm() -> Iterator[Helm]:
    """An empty cluster and Helm; skipped where the engine is not installed, which CI does not accept."""
    if importlib.util.find_spec("helm_sdkpy") is None:
        message = "helm-sdkpy is not installed; scripts/install does it"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    api = _recording_api()
    cluster = api.Cluster()
    handler = type("Handler", (api.Handler,), {"cluster": cluster})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Helm(f"http://127.0.0.1:{server.server_address[1]}", cluster)
        server.shutdown()
        thread.join()


@pytest.fixture
def example() -> Callable[[str], Object]:
    """The values of an example, by name."""
    return lambda name: yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


@pytest.fixture
def chart() -> Path:
    return CHART

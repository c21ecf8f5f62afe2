"""With API keys, a request without one gets OpenAI's 401; probes need none; a changed file is heeded."""

import os
from pathlib import Path

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from heliostat.errors import HeliostatError
from router.frontend.api_keys import ApiKeyCheck, ApiKeys, keys_from


async def answer(request: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": []})


def app(keys: ApiKeys) -> Starlette:
    paths = ("/v1/models", "/health", "/ready", "/status", "/health/", "/v1/chat/completions")
    served = Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path in paths])
    served.add_middleware(ApiKeyCheck, keys=keys)
    return served


def client(keys: ApiKeys) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app(keys)), base_url="http://test")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("sk-3"),
        bearer(""),
        bearer("sk-1x"),
        {"authorization": "sk-1"},
        {"authorization": "Basic sk-1"},
    ],
)
async def test_a_request_without_a_valid_key_is_refused(headers: dict[str, str]) -> None:
    response = await client(ApiKeys("sk-1,sk-2")).post("/v1/chat/completions", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"] == {
        "message": "no valid API key; send `Authorization: Bearer KEY`",
        "type": "AuthenticationError",
        "param": None,
        "code": 401,
    }


@pytest.mark.parametrize("key", ["sk-1", "sk-2"])
async def test_each_key_is_good(key: str) -> None:
    assert (await client(ApiKeys("sk-1, sk-2\n")).get("/v1/models", headers=bearer(key))).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/ready", 200), ("/status", 401), ("/health/", 401)]
)
async def test_only_probes_need_no_key(path: str, status: int) -> None:
    assert (await client(ApiKeys("sk-1")).get(path)).status_code == status


async def test_openais_client_sees_its_own_error() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app(ApiKeys("sk-1")))) as http:
        right = openai.AsyncOpenAI(base_url="http://test/v1", api_key="sk-1", http_client=http)
        assert (await right.models.list()).data == []
        wrong = openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http)
        with pytest.raises(openai.AuthenticationError, match="no valid API key"):
            await wrong.models.list()


def test_keys_of_a_file_can_be_replaced(tmp_path: Path) -> None:
    """As Kubernetes does it: another directory behind a link."""
    for version, key in (("one", "sk-old"), ("two", "sk-new")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(f"{key}\n")
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "one")
    keys = ApiKeys("sk-fixed", link / "keys")
    assert [keys.accepts(key) for key in ("sk-old", "sk-new", "sk-fixed")] == [True, False, True]
    (tmp_path / "next").symlink_to(tmp_path / "two")
    os.replace(tmp_path / "next", link)
    assert [keys.accepts(key) for key in ("sk-old", "sk-new", "sk-fixed")] == [False, True, True]


def test_a_file_that_is_gone_leaves_its_last_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-1 sk-2")
    keys = ApiKeys(file=file)
    file.unlink()
    assert keys.accepts("sk-1") and not keys.accepts("")


def test_nobody_is_served_by_mistake(tmp_path: Path) -> None:
    assert keys_from({}) is None
    with pytest.raises(HeliostatError, match="holds no key"):
        keys_from({"HELIOSTAT_API_KEYS": " , "})
    with pytest.raises(HeliostatError, match="nothing cannot be read"):
        keys_from({"HELIOSTAT_API_KEYS_FILE": str(tmp_path / "nothing")})
    keys = keys_from({"HELIOSTAT_API_KEYS": "sk-1"})
    assert keys is not None and keys.accepts("sk-1")

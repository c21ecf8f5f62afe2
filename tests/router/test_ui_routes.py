"""The files of the live page over HTTP: types, headers, and nothing but what belongs to the page."""

import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hatchling.builders.wheel import WheelBuilder

from router.frontend.ui_routes import PATH, TYPES, add_ui_routes, load_assets


@pytest.fixture
def http() -> httpx.AsyncClient:
    app = FastAPI()
    add_ui_routes(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def paths() -> list[str]:
    return [PATH if name == "page.html" else f"{PATH}/{name}" for name in load_assets()]


def test_the_page_has_files_of_every_kind() -> None:
    assert {f".{name.rpartition('.')[2]}" for name in load_assets()} == set(TYPES)


@pytest.mark.parametrize("path", paths())
async def test_every_file_has_its_type_and_the_safe_headers(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == httpx.codes.OK and answer.content
    kind = TYPES[f".{path.rpartition('.')[2]}" if "." in path else ".html"]
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert not re.search(r"unsafe|https?:|\*|data:", answer.headers["content-security-policy"])


@pytest.mark.parametrize("path", paths())
async def test_head_says_what_get_would(http: httpx.AsyncClient, path: str) -> None:
    got, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (httpx.codes.OK, b"")
    assert head.headers == got.headers
    assert head.headers["content-length"] == str(len(got.content))


async def test_a_browser_that_has_a_file_is_told_so(http: httpx.AsyncClient) -> None:
    first = await http.get(PATH)
    assert first.headers["cache-control"] == "no-cache"
    again = await http.get(PATH, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (httpx.codes.NOT_MODIFIED, b"")
    other = await http.get(PATH, headers={"if-none-match": '"other"'})
    assert other.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "path",
    ["/ui/unknown.js", "/ui/page.html", "/ui/__init__.py", "/ui/../app.py", "/ui/%2e%2e/app.py", "/uix"],
)
async def test_what_is_no_file_of_the_page_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == httpx.codes.NOT_FOUND


async def test_the_page_cannot_be_written(http: httpx.AsyncClient) -> None:
    assert (await http.post(PATH)).status_code == httpx.codes.METHOD_NOT_ALLOWED


def test_the_wheel_has_every_file_of_the_page() -> None:
    root = str(Path(__file__).parents[2])
    packed = {file.distribution_path for file in WheelBuilder(root).recurse_included_files()}
    assert {f"router/frontend/ui/{name}" for name in load_assets()} <= packed


def test_the_page_names_no_other_host_and_holds_nothing_inline() -> None:
    """The policy would stop it in a browser; here it is found before that."""
    for name, asset in load_assets().items():
        text = asset.content.decode()
        hosts = set(re.findall(r"https?://([\w.]+)", text))
        assert hosts <= {"www.w3.org"}, name  # SVG's namespace, which nobody fetches
        if name.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", text), name
        if name.endswith(".js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name


@pytest.mark.parametrize("name", load_assets())
def test_what_a_file_of_the_page_asks_for_is_there(name: str) -> None:
    text = load_assets()[name].content.decode()
    asked = re.findall(r'(?:from "\./|(?:src|href)="ui/)([\w.]+)"', text)
    assert set(asked) <= set(load_assets())
    assert asked or name not in ("page.html", "page.js")

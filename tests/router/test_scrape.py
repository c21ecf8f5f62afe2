"""`/heliostat/targets` in the form of Prometheus' HTTP service discovery."""

import httpx
from fastapi import FastAPI

from router.frontend.scrape import PATH, add_scrape_route


async def test_targets_are_told_as_they_are_at_the_moment() -> None:
    nodes: list[str] = []

    async def targets() -> list[str]:
        return nodes

    app = FastAPI()
    add_scrape_route(app, targets)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        assert (await http.get(PATH)).json() == [{"targets": [], "labels": {}}]
        nodes += ["10.0.0.1:8080", "10.0.0.2:8080"]
        answer = await http.get(PATH)
    assert answer.headers["content-type"] == "application/json"  # or Prometheus refuses it
    assert answer.json() == [{"targets": ["10.0.0.1:8080", "10.0.0.2:8080"], "labels": {}}]


async def test_the_targets_on_the_page(shown: str) -> None:
    _, _, answer = shown.partition("\n")

    async def targets() -> list[str]:
        return ["192.0.2.2:37797"]

    app = FastAPI()
    add_scrape_route(app, targets)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        assert (await http.get(PATH)).text == answer.strip()
    assert PATH in shown

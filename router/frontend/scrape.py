"""`GET /heliostat/targets`: where Prometheus finds the metrics of the whole cluster.

The answer is Prometheus' HTTP service discovery: one target per node, as nodes come and go.
"""

from collections.abc import Awaitable, Callable, Sequence

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

PATH = "/heliostat/targets"

ScrapeTargets = Callable[[], Awaitable[Sequence[str]]]
"""`host:port` of every node's metrics."""


def add_scrape_route(app: FastAPI, scrape_targets: ScrapeTargets) -> None:
    """The endpoint."""

    async def targets() -> Response:
        return JSONResponse([{"targets": list(await scrape_targets()), "labels": {}}])

    app.get(PATH, response_model=None)(targets)

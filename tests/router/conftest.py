"""A router that answers what a test wants, for the live page in a real browser."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest_asyncio
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from heliostat.status import ClusterStatus, LiveCounts, ModelStatus, PoolStatus, ReplicaStatus, RouterStatus
from heliostat.wire import Role
from router.frontend.ui_routes import add_ui_routes


def replica(name: str, **figures: float) -> ReplicaStatus:
    plain = {"waiting": 0, "running": 0, "queued_prompt_tokens": 0, "kv_use": 0.0, "handoffs": (), "pid": 1}
    return ReplicaStatus.model_validate({"name": name, **plain, **figures})


def pool(role: Role, name: str, models: tuple[str, ...], problem: str | None = None) -> PoolStatus:
    replicas = () if problem else tuple(replica(f"{role}-{name}#{n}", max_running=8) for n in "ab")
    return PoolStatus(role=role, name=name, models=models, replicas=replicas, problem=problem)


def model(name: str, **live: int) -> ModelStatus:
    times = dict.fromkeys(("ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms", "tpot_p95_ms"), 12.0)
    tokens = {"prompt_tokens": 200, "cached_tokens": 100, "cross_model_tokens": 50, "output_tokens": 7}
    facts = {"name": name, "requests": {"finished": 5, "failed": 2}, "live": LiveCounts(**live)}
    return ModelStatus.model_validate({**facts, **tokens, **times})


def status(*models: ModelStatus, problem: str | None = None, **router: object) -> ClusterStatus:
    """All models share a decode pool; the first two prefill pools take turns, and only one may be broken."""
    names = tuple(each.name for each in models)
    pools = (
        pool(Role.PREFILL, "even", names[::2]),
        pool(Role.PREFILL, "odd", names[1::2], problem),
        pool(Role.DECODE, "shared", names),
    )
    said = RouterStatus.model_validate({"pid": 1, "streams": 0, "loop_stall_p99_ms": 0, **router})
    return ClusterStatus(version="1.2.3", ready=not problem, pools=pools, models=models, router=said)


@dataclass
class FakeRouter:
    """Answers `/status` with the next of `statuses` (the last one for ever), and chats with `events`."""

    statuses: list[ClusterStatus]
    events: list[object] = field(default_factory=list)
    refusal: Response | None = None
    endless: bool = False
    polls: int = 0
    bodies: list[dict[str, object]] = field(default_factory=list)
    chats: list[tuple[str | None, str | None]] = field(default_factory=list)
    """Key and deadline of each."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    model = staticmethod(model)
    status = staticmethod(status)

    async def start(self) -> None:
        app = FastAPI()
        add_ui_routes(app)
        app.get("/status", response_model=None)(self._status)
        app.post("/v1/chat/completions", response_model=None)(self._chat)
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._serving

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ui"

    async def _status(self, request: Request) -> Response:
        self.polls += 1
        now = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return JSONResponse(now.model_dump(mode="json"))

    async def _chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        asked = request.headers.get("authorization"), request.headers.get("x-heliostat-deadline")
        self.chats.append(asked)
        if self.refusal:
            return self.refusal
        served = {"x-heliostat-prefill": "prefill-even#a", "x-heliostat-decode": "decode-shared#b"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=served)

    async def _stream(self) -> AsyncIterator[str]:
        for event in self.events:
            yield f"data: {json.dumps(event)}\n\n"
        try:
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.left.set()
        yield "data: [DONE]\n\n"


@pytest_asyncio.fixture(loop_scope="module")
async def router() -> AsyncIterator[FakeRouter]:
    fake = FakeRouter([status(model("alpha"), model("beta"))])
    await fake.start()
    yield fake
    await fake.stop()

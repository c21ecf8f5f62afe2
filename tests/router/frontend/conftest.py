"""vLLM's OpenAI layer over the real pipeline and pools that only write down: no engine, no Ray."""

import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from openai import AsyncOpenAI
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import TokenizerLike

from heliostat.errors import RequestError
from heliostat.spec import Family, Model, Pool, Router, Spec
from heliostat.status import ClusterStatus
from heliostat.wire import (
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Role,
    Ticket,
    TokenDelta,
    TokenFrame,
    TokenLogprobs,
)
from router.accounts import Accounts
from router.admission import Admission, PoolFigures
from router.frontend.app import build_app
from router.frontend.openai import OpenAILayer
from router.pipeline import Pipeline
from router.route import Route

BASE = Path(__file__).parents[3] / "examples" / "quickstart" / "weights" / "base"
MODELS = ("home", "spell")
END = 1
"""The token that ends an answer."""


@dataclass
class WrittenPools:
    """Both pools of every model: of prompts, one after the other, so many tokens are `cached`.

    Where they fail, they do it in the place of the token of that number.
    """

    tokenizer: TokenizerLike
    text: str | list[int] = "ok"
    cached: list[int] = field(default_factory=list)
    brought: list[int] = field(default_factory=list)
    rate: float = 0.0
    failure: tuple[int, RequestError] | None = None
    prefills: list[PrefillRequest] = field(default_factory=list)
    decodes: list[DecodeRequest] = field(default_factory=list)

    @property
    def sampling(self) -> SamplingParams:
        """Of the last request."""
        return msgspec.msgpack.decode(self.decodes[-1].sampling, type=SamplingParams)

    @property
    def prompt(self) -> str:
        """Of the last request, as text."""
        return self.tokenizer.decode(list(self.decodes[-1].token_ids))

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        self.prefills.append(request)
        ticket = Ticket("t", "shm", "here", "kv", "p", len(request.token_ids), 1, 64, "p0", 0.0)
        load = Load("p0", 0, 0, 0, 0.0, 1, prefill_tokens_per_s=self.rate, domain="kv")
        cached, brought = (counts.pop(0) if counts else 0 for counts in (self.cached, self.brought))
        return PrefillResult(ticket, load, cached, 0.0, brought)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    async def release(self, ticket: Ticket) -> None:
        """Nothing is kept."""

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return 0

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        self.decodes.append(request)
        load, sampling = Load("d0", 0, 0, 0, 0.0, 1), self.sampling
        text = self.text
        ids = self.tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else text
        ids = [*ids, END][: sampling.max_tokens]
        for number, token in enumerate(ids):
            if self.failure is not None and self.failure[0] == number:
                raise self.failure[1]
            last = number == len(ids) - 1
            logprobs = (
                (TokenLogprobs(((token, -0.5, 1), (5, -1.5, 2))),)
                if sampling.num_logprobs is not None
                else None
            )
            end = ("stop" if token == END else "length") if last else None
            deltas = tuple(TokenDelta(index, (token,), logprobs, end) for index in range(sampling.n))
            yield TokenFrame(deltas, last, load, 0.1)


class QuietCluster:
    """A cluster that is up."""

    def unavailable(self, model: str) -> str | None:
        return None

    def problem(self) -> str | None:
        return None

    async def status(self) -> ClusterStatus:
        raise NotImplementedError

    def slots(self, role: Role, pool: str) -> PoolFigures:
        return PoolFigures(1, 1, 64.0, 0.0, 1e6, 0.0)


class NoChanges:
    """Models stay as they are."""

    def __getattr__(self, name: str) -> object:
        raise NotImplementedError(name)


@dataclass
class Surface:
    """The HTTP surface, and what reaches the pools behind it."""

    http: httpx.AsyncClient
    openai: AsyncOpenAI
    pools: WrittenPools


def build(base: Path, tool_parser: str) -> tuple[httpx.ASGITransport, WrittenPools]:
    pool = Pool(weights=str(base))
    spec = Spec(
        family=Family(base=str(base), dtype="float32", max_model_len=2048),
        router=Router(tool_parser=tool_parser),
        prefill={"p": pool},
        decode={"d": pool},
        models={name: Model(prefill="p", decode="d") for name in MODELS},
    )
    cluster, accounts = QuietCluster(), Accounts(spec)
    admission = Admission(spec, cluster, lambda: 0.0)
    routes: dict[str, Route] = {}
    pipeline = Pipeline(routes, admission, accounts)
    layer = OpenAILayer(base, spec.family, pipeline, cluster.unavailable, admission, tool_parser)
    pools = WrittenPools(layer.tokenizer)
    routes.update(dict.fromkeys(MODELS, Route(pools, pools)))
    serving = {name: layer.serving(name, name) for name in MODELS}
    app = build_app(serving, cluster, lambda status: status, NoChanges())
    return httpx.ASGITransport(app, raise_app_exceptions=False), pools


@pytest.fixture(scope="session")
def json_surface() -> tuple[httpx.ASGITransport, WrittenPools]:
    return build(BASE, "json")


@pytest.fixture(scope="session")
def hermes_surface(tmp_path_factory: pytest.TempPathFactory) -> tuple[httpx.ASGITransport, WrittenPools]:
    """With vLLM's parser for Hermes' tool calls, and a chat template that shows what it was given."""
    base = tmp_path_factory.mktemp("base") / "weights"
    shutil.copytree(BASE, base)
    template = (
        "{{- 'thinking ' ~ (enable_thinking | default('unsaid')) -}}"
        "{{- ' tools ' ~ (tools | default([], true) | length) -}}"
        "{%- for message in messages -%}{{- ' ' ~ message.content -}}{%- endfor -%}"
    )
    (base / "chat_template.jinja").write_text(template)
    return build(base, "hermes")


@pytest.fixture
def open_surface() -> Iterator[Callable[[tuple[httpx.ASGITransport, WrittenPools]], Surface]]:
    def make(built: tuple[httpx.ASGITransport, WrittenPools]) -> Surface:
        transport, pools = built
        pools.text, pools.cached, pools.rate, pools.failure = "ok", [], 0.0, None
        pools.prefills.clear()
        pools.decodes.clear()
        http = httpx.AsyncClient(transport=transport, base_url="http://router")
        client = AsyncOpenAI(base_url="http://router/v1", api_key="none", max_retries=0, http_client=http)
        return Surface(http, client, pools)

    yield make


@pytest.fixture
async def surface(json_surface, open_surface) -> AsyncIterator[Surface]:
    """A cluster as it is without a word about tools in its spec."""
    surface = open_surface(json_surface)
    async with surface.http:
        yield surface


@pytest.fixture
async def hermes(hermes_surface, open_surface) -> AsyncIterator[Surface]:
    surface = open_surface(hermes_surface)
    async with surface.http:
        yield surface

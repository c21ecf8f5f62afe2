"""LoRA adapters in a vLLM engine: how they are named, loaded, and let go (vLLM 0.32).

An adapter's digest is its name there, so the engine's block keys, which hold that name, and its KV events
tell contents apart: an adapter that comes back changed under its old name shares nothing with what it was.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import get_args

from vllm.config.lora import MaxLoRARanks
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM

from deployments.adapter_shelf import AdapterShelf
from deployments.engine import EngineConfig, KvListener
from deployments.weights import local_weights
from heliostat.errors import EngineStartError, HeliostatError
from heliostat.spec import Lora, Pool
from heliostat.wire import Adapter
from kvtransfer.adapter import AdapterModule, read_adapter

DEFAULT_RANK = 16


def lora_args(pool: Pool) -> dict[str, object]:
    """vLLM's arguments for a pool that takes adapters; none for another. Raises HeliostatError."""
    if not pool.takes_adapters:
        return {}
    lora = room(pool)
    return {
        "enable_lora": True,
        "max_loras": lora.slots,
        "max_cpu_loras": max(lora.kept, lora.slots),
        "max_lora_rank": max_rank(pool),
    }


def room(pool: Pool) -> Lora:
    """What the spec says of it, or the defaults."""
    return pool.lora or Lora()


def max_rank(pool: Pool) -> int:
    """The smallest rank that vLLM has kernels for and all listed adapters fit in. Raises HeliostatError."""
    wanted = room(pool).rank
    if wanted is None:
        listed = [read_adapter(local_weights(path)).rank for path in pool.adapters.values()]
        wanted = max(listed, default=DEFAULT_RANK)
    ranks = [rank for rank in sorted(get_args(MaxLoRARanks)) if rank >= wanted]
    if not ranks:
        raise HeliostatError(f"vLLM serves adapters up to rank {max(get_args(MaxLoRARanks))}, not {wanted}")
    return int(ranks[0])


def _read(path: str) -> AdapterModule:
    return read_adapter(local_weights(path))


class _Loader:
    """`deployments.adapter_shelf.AdapterLoader` over one engine."""

    def __init__(self, llm: AsyncLLM, config: EngineConfig) -> None:
        self._llm = llm
        self._pool_name = config.pool_name
        self._max_rank = max_rank(config.pool)
        self.requests: dict[int, LoRARequest] = {}

    async def load(self, adapter: Adapter, number: int) -> None:
        module = await asyncio.to_thread(_read, adapter.path)
        if module.digest != adapter.digest:
            raise HeliostatError(
                f"adapter {adapter.path}: its content here is not what the router has seen; "
                "give changed adapters a new path, and every host the same files"
            )
        if module.rank > self._max_rank:
            raise HeliostatError(
                f"adapter {adapter.path}: its rank is {module.rank}, pool {self._pool_name} has room for "
                f"{self._max_rank}; raise `lora.rank` in its section"
            )
        request = LoRARequest(adapter.digest, number, str(module.path))
        # What goes wrong in the engine's process comes back as a bare Exception.
        outcomes: list[object] = await asyncio.gather(self._llm.add_lora(request), return_exceptions=True)
        outcome = outcomes[0]
        if isinstance(outcome, BaseException):
            reason = str(outcome).strip().splitlines()[-1:] or [type(outcome).__name__]
            raise HeliostatError(f"adapter {adapter.path}: the engine refused it: {reason[0]}") from outcome
        self.requests[number] = request

    async def unload(self, number: int) -> None:
        del self.requests[number]
        await self._llm.remove_lora(number)


class EngineAdapters:
    """A replica's side of its adapters: in memory before they are used, refused where there is no room."""

    def __init__(self, config: EngineConfig, on_kv: KvListener | None) -> None:
        self._config = config
        self._on_kv = on_kv
        self._loader: _Loader | None = None
        self._shelf: AdapterShelf | None = None

    async def open(self, llm: AsyncLLM, log: str) -> None:
        """The engine has started. Listed adapters are there from the first request on.

        Raises EngineStartError for one that is broken.
        """
        pool = self._config.pool
        if not pool.takes_adapters:
            return
        kept = room(pool).kept
        self._loader = _Loader(llm, self._config)
        self._shelf = AdapterShelf(self._loader, kept, self._changed)
        try:
            for path in list(pool.adapters.values())[:kept]:
                module = await asyncio.to_thread(_read, path)
                async with self.use(module.reference, HeliostatError):
                    pass
        except HeliostatError as error:
            raise EngineStartError(self._config.pool_name, str(error), log) from error

    @asynccontextmanager
    async def use(
        self, adapter: Adapter | None, failure: type[HeliostatError]
    ) -> AsyncGenerator[LoRARequest | None, None]:
        """What vLLM has to be told of a request's adapter, in memory for as long as it is needed.

        Raises `failure` when it cannot be loaded.
        """
        if adapter is None:
            yield None
            return
        if self._shelf is None or self._loader is None:
            raise failure(f"pool {self._config.pool_name} takes no adapters; say `lora: {{}}` in its section")
        async with AsyncExitStack() as stack:
            try:
                number = await stack.enter_async_context(self._shelf.use(adapter))
            except HeliostatError as error:
                raise failure(f"{self._config.replica}: {error}") from error
            yield self._loader.requests[number]

    async def drop(self, digest: str) -> None:
        """No request will ask for this adapter any more."""
        if self._shelf is not None:
            await self._shelf.drop(digest)

    def _changed(self, added: list[int], removed: list[int]) -> None:
        if self._on_kv is not None:
            self._on_kv(self._config.replica, added, removed)

"""Heliostat's KV connector for vLLM: the one file of `kvtransfer` that knows vLLM (0.32).

    prefill engine                                decode engine
    x_1 … x_{N-1}, max_tokens 1                   x_1 … x_N
    build_connector_meta: a chunk -> save         get_num_new_matched_tokens: N-1
    wait_for_save: copy its whole blocks          start_load_kv: copy, small KV before the forward,
    request_finished: release if aborted            large or unfinished KV beside it
                                                  the forward computes exactly x_N

vLLM builds the connector twice, in the scheduler's process and in the worker's, and passes
`HandoffMetadata` from the one to the other in every step. Interface:
`vllm.distributed.kv_transfer.kv_connector.v1.base.KVConnectorBase_V1`.

Not covered: more than one KV cache group (hybrid models), KV on a GPU, tensor parallelism.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
from vllm.v1.request import RequestStatus

from heliostat.spec import Transfer
from kvtransfer.handoff import Announcement, BlockCopy, CopyRecord, Direction, HandoffParams
from kvtransfer.loader import Loader
from kvtransfer.memory import BlockMemory
from kvtransfer.registry import create_client, create_store
from kvtransfer.saver import Saver

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.forward_context import ForwardContext
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

CONNECTOR_NAME = "HeliostatConnector"
TRANSFER_CONFIG = "transfer"
"""The key in `kv_connector_extra_config` under which the spec's transfer section arrives."""
OWNER_CONFIG = "owner"
"""The key for the id of the replica's store."""
ONE_WRITER_CONFIG = "one_writer"
"""The key that says whether this engine's base is the prefill module, and writes all KV (ICaRus)."""

BACKGROUND_BYTES = 8 * 2**20
"""From this size on, a load does not hold up the batch; below, parking the request costs more steps."""
IDLE_WAIT_S = 0.005
"""How long a step with nothing to compute waits for a load, instead of spinning."""


@dataclass
class HandoffMetadata(KVConnectorMetadata):  # type: ignore[misc]
    """One step's copies, from the scheduler to the worker; requests by vLLM's ids."""

    saves: list[BlockCopy] = field(default_factory=list)
    loads: list[BlockCopy] = field(default_factory=list)
    background_loads: list[BlockCopy] = field(default_factory=list)
    refusals: list[BlockCopy] = field(default_factory=list)
    stashes: list[BlockCopy] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    idle: bool = False


@dataclass(slots=True)
class _Saving:
    """A prompt whose KV is leaving chunk by chunk: how many of its blocks have left, and how many of its
    tokens the prefix cache had (None until its first chunk is planned)."""

    request: "Request"
    params: HandoffParams
    saved_blocks: int = 0
    cached_tokens: int | None = None
    announced: bool = False


@dataclass
class HandoffStats(KVConnectorStats):  # type: ignore[misc]
    """What the worker has to say to the replica, as plain dicts: "records" and "announcements"."""

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        assert isinstance(other, HandoffStats)
        return HandoffStats({key: [*self.data[key], *other.data[key]] for key in self.data})

    def reduce(self) -> dict[str, int | float]:
        records = self.data["records"]
        return {
            "handoffs": len(records),
            "bytes": sum(int(str(record["num_bytes"])) for record in records),
            "ms": sum(float(str(record["ms"])) for record in records),
        }

    def reset(self) -> None:
        self.data: dict[str, list[dict[str, object]]] = {"records": [], "announcements": []}

    def is_empty(self) -> bool:
        return not any(self.data.values())


class HeliostatConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """Writes or reads the whole prompt's KV (rule 2) through the transport that the spec names."""

    def __init__(
        self, vllm_config: "VllmConfig", role: KVConnectorRole, kv_cache_config: "KVCacheConfig"
    ) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        config = vllm_config.kv_transfer_config
        self._produces: bool = config.is_kv_producer
        self._transfer = Transfer.model_validate(config.kv_connector_extra_config[TRANSFER_CONFIG])
        self._owner_id = str(config.kv_connector_extra_config[OWNER_CONFIG])
        self._one_writer = bool(config.kv_connector_extra_config.get(ONE_WRITER_CONFIG))
        self._block_size: int = vllm_config.cache_config.block_size
        self._chunk_tokens: int = vllm_config.scheduler_config.max_num_batched_tokens
        # Scheduler's half.
        self._saving: dict[str, _Saving] = {}
        self._loaded: dict[str, BlockCopy] = {}
        self._meta = HandoffMetadata()
        # Worker's half: a prefill engine saves, a decode engine loads.
        self._saver: Saver | None = None
        self._loader: Loader | None = None
        self._idle = False

    # Scheduler's half: decides, copies nothing. It must not raise: that would end the engine.

    def get_num_new_matched_tokens(self, request: "Request", num_computed_tokens: int) -> tuple[int, bool]:
        """All of x_1 … x_{N-1}; called again after a preemption and while waiting."""
        params = HandoffParams.decode(request.kv_transfer_params)
        if params is None or params.direction is not Direction.LOAD:
            return 0, False
        missing = max(0, params.num_tokens - num_computed_tokens)
        return missing, missing > 0 and _in_background(params)

    def update_state_after_alloc(
        self, request: "Request", blocks: "KVCacheBlocks", num_external_tokens: int
    ) -> None:
        """The request has its blocks: plan its load, or remember that its KV is to be saved."""
        params = HandoffParams.decode(request.kv_transfer_params)
        if params is None:
            return
        if params.direction is Direction.SAVE:
            self._saving.setdefault(request.request_id, _Saving(request, params))
            return
        num_blocks = -(-params.num_tokens // self._block_size)
        all_blocks = tuple(blocks.get_block_ids()[0][:num_blocks])
        whole = BlockCopy(request.request_id, params, 0, all_blocks, num_blocks)
        if num_external_tokens:
            first = (params.num_tokens - num_external_tokens) // self._block_size
            copy = replace(whole, first_block=first, block_ids=all_blocks[first:])
            self._loaded[request.request_id] = whole
            (self._meta.background_loads if _in_background(params) else self._meta.loads).append(copy)
        elif request.num_computed_tokens < params.num_tokens and not self._one_writer:
            # vLLM drops the connector's count for requests that skip the prefix cache
            # (prompt_logprobs does it) and would compute the prompt with the decode module.
            self._meta.refusals.append(whole)

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> HandoffMetadata:
        """This step's copies; a prompt's blocks are saved in the step that completes them.

        `request.num_computed_tokens` is advanced after this call, so the sum below is exact for
        chunked prefill, prefix hits and a preempted prefill alike.
        """
        meta, self._meta = self._meta, HandoffMetadata()
        meta.idle = not scheduler_output.total_num_scheduled_tokens
        for request_id in scheduler_output.preempted_req_ids or ():
            if request_id in self._saving:
                meta.preempted.append(request_id)
            elif whole := self._loaded.pop(request_id, None):
                meta.stashes.append(whole)
        for request_id, num_scheduled in scheduler_output.num_scheduled_tokens.items():
            if saving := self._saving.get(request_id):
                self._plan_save(meta, saving, num_scheduled)
        return meta

    def _plan_save(self, meta: HandoffMetadata, saving: _Saving, num_scheduled: int) -> None:
        request, params = saving.request, saving.params
        if saving.cached_tokens is None:
            saving.cached_tokens = request.num_computed_tokens
        computed = request.num_computed_tokens + num_scheduled
        num_blocks = -(-params.num_tokens // self._block_size)
        last = computed >= request.num_prompt_tokens
        end = num_blocks if last else computed // self._block_size
        first = saving.saved_blocks
        if not last and end <= first:
            return  # a preempted prefill computes again what has left already
        block_ids = tuple(self._kv_cache_manager.get_block_ids(request.request_id)[0][first:end])
        remaining = request.num_prompt_tokens - computed
        announced = not last and not saving.announced and remaining <= self._chunk_tokens
        copy = BlockCopy(
            request.request_id, params, first, block_ids, num_blocks, last, announced, saving.cached_tokens
        )
        meta.saves.append(copy)
        saving.saved_blocks = end
        saving.announced |= announced
        if last:
            del self._saving[request.request_id]

    def request_finished(self, request: "Request", block_ids: list[int]) -> tuple[bool, None]:
        """Blocks are free at once: the bytes are out. An aborted prefill leaves nothing behind."""
        self._saving.pop(request.request_id, None)
        self._loaded.pop(request.request_id, None)
        params = HandoffParams.decode(request.kv_transfer_params)
        aborted = request.status in (RequestStatus.FINISHED_ABORTED, RequestStatus.FINISHED_ERROR)
        if params is not None and params.direction is Direction.SAVE and aborted:
            self._meta.released.append(params.ticket_id)
        return False, None

    # Worker's half: copies.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        # How a block is packed is vLLM's affair, and differs between releases and instruction sets.
        packing = f"vllm-{vllm.__version__} {torch.backends.cpu.get_cpu_capability()}"
        memory = BlockMemory(kv_caches, packing)
        if self._produces:
            self._saver = Saver(create_store(self._transfer, self._owner_id), memory)
        else:
            self._loader = Loader(create_client(self._transfer, self._owner_id), memory)

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Before anything else in a step: these blocks are still what they were."""
        assert isinstance(kv_connector_metadata, HandoffMetadata)
        if self._saver:
            self._saver.settle(kv_connector_metadata.preempted)
        if self._loader:
            for copy in kv_connector_metadata.stashes:
                self._loader.stash(copy)

    def start_load_kv(self, forward_context: "ForwardContext", **kwargs: object) -> None:
        """Before the forward when a load is synchronous: the prompt's KV is in place for x_N."""
        meta = self._worker_meta()
        self._idle = meta.idle
        if self._loader is None:
            return
        for copy in meta.background_loads:
            self._loader.load_later(copy)
        for copy in meta.loads:
            self._loader.load(copy)
        for copy in meta.refusals:
            self._loader.refuse(copy, "the engine would compute the prompt with the decode module")

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing to wait for: a load is over before its request's first step."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: object, **kwargs: object
    ) -> None:
        """Nothing here: on CPU a chunk's copy hides behind the next chunk, a layer's behind nothing."""

    def wait_for_save(self) -> None:
        """After the forward: every block of this chunk is computed."""
        if self._saver is None:
            return
        meta = self._worker_meta()
        for copy in meta.saves:
            self._saver.save(copy)
        for ticket_id in meta.released:
            self._saver.release(ticket_id)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[None, set[str] | None]:
        """Requests whose load in the background is over; and farewell to those that are over at all."""
        if self._saver:
            self._saver.drop(finished_req_ids)
        if self._loader is None:
            return None, None
        self._loader.forget(finished_req_ids)
        return None, self._loader.take_loaded(IDLE_WAIT_S if self._idle else 0.0) or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._loader.take_invalid_blocks() if self._loader else set()

    def get_kv_connector_stats(self) -> HandoffStats | None:
        side = self._saver or self._loader
        if side is None:  # the scheduler's half is asked, too
            return None
        records = [asdict(record) for record in side.take_records()]
        announcements = [asdict(each) for each in self._saver.take_announcements()] if self._saver else []
        stats = HandoffStats({"records": records, "announcements": announcements})
        return None if stats.is_empty() else stats

    def shutdown(self) -> None:
        """The worker ends in good order."""
        if self._saver:
            self._saver.close()
        if self._loader:
            self._loader.close()

    @classmethod
    def build_kv_connector_stats(
        cls, data: dict[str, list[dict[str, str | float]]] | None = None
    ) -> HandoffStats:
        return HandoffStats(data or {"records": [], "announcements": []})

    def _worker_meta(self) -> HandoffMetadata:
        meta = self._get_connector_metadata()
        assert isinstance(meta, HandoffMetadata)
        return meta


def _in_background(params: HandoffParams) -> bool:
    return params.streamed or params.num_bytes >= BACKGROUND_BYTES


Stats = Mapping[str, Iterable[Mapping[str, object]]]


def copy_records(stats: Stats | None) -> list[CopyRecord]:
    """The records in `SchedulerStats.kv_connector_stats`, as the replica's stat logger gets it."""
    records = (stats or {}).get("records", ())
    return [CopyRecord(**{**record, "direction": Direction(str(record["direction"]))}) for record in records]  # type: ignore[arg-type]


def announcements(stats: Stats | None) -> list[Announcement]:
    """The announcements beside them."""
    return [Announcement(**each) for each in (stats or {}).get("announcements", ())]  # type: ignore[arg-type]

"""Heliostat's KV connector for vLLM: the one file of `kvtransfer` that knows vLLM (0.32).

    prefill engine                                decode engine
    x_1 … x_{N-1}, max_tokens 1                   x_1 … x_N
    build_connector_meta: last chunk? -> save     get_num_new_matched_tokens: N-1, synchronous
    wait_for_save: copy whole blocks              start_load_kv: copy before the forward
    request_finished: unlink if aborted           the forward computes exactly x_N

vLLM builds the connector twice, in the scheduler's process and in the worker's, and passes
`HandoffMetadata` from the one to the other in every step. Interface:
`vllm.distributed.kv_transfer.kv_connector.v1.base.KVConnectorBase_V1`.

Not covered: more than one KV cache group (hybrid models), KV on a GPU, asynchronous loads.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
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
from kvtransfer.copier import KVCopier
from kvtransfer.handoff import BlockCopy, CopyRecord, Direction, HandoffParams
from kvtransfer.memory import BlockMemory
from kvtransfer.transport import create_transport

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


@dataclass
class HandoffMetadata(KVConnectorMetadata):  # type: ignore[misc]
    """One step's copies, from the scheduler to the worker."""

    saves: list[BlockCopy] = field(default_factory=list)
    loads: list[BlockCopy] = field(default_factory=list)
    refusals: list[BlockCopy] = field(default_factory=list)


@dataclass
class HandoffStats(KVConnectorStats):  # type: ignore[misc]
    """Copy records on their way from the worker to the replica, as plain dicts under "records"."""

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        return HandoffStats({"records": [*self.data["records"], *other.data["records"]]})

    def reduce(self) -> dict[str, int | float]:
        records = self.data["records"]
        return {
            "handoffs": len(records),
            "bytes": sum(record["num_bytes"] for record in records),
            "ms": sum(record["ms"] for record in records),
        }

    def reset(self) -> None:
        self.data["records"] = []

    def is_empty(self) -> bool:
        return not self.data.get("records")


class HeliostatConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """Writes or reads the whole prompt's KV (rule 2) through the transport that the spec names."""

    def __init__(
        self, vllm_config: "VllmConfig", role: KVConnectorRole, kv_cache_config: "KVCacheConfig"
    ) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        self._transport = create_transport(Transfer.model_validate(extra[TRANSFER_CONFIG]))
        self._block_size: int = vllm_config.cache_config.block_size
        # Scheduler's half.
        self._saving: dict[str, Request] = {}
        self._meta = HandoffMetadata()
        # Worker's half.
        self._copier: KVCopier | None = None

    # Scheduler's half: decides, copies nothing. It must not raise: that would end the engine.

    def get_num_new_matched_tokens(self, request: "Request", num_computed_tokens: int) -> tuple[int, bool]:
        """All of x_1 … x_{N-1}, synchronously; called again after a preemption and while waiting."""
        params = HandoffParams.decode(request.kv_transfer_params)
        if params is None or params.direction is not Direction.LOAD:
            return 0, False
        return max(0, params.num_tokens - num_computed_tokens), False

    def update_state_after_alloc(
        self, request: "Request", blocks: "KVCacheBlocks", num_external_tokens: int
    ) -> None:
        """The request has its blocks: plan its load, or remember that its KV is to be saved."""
        params = HandoffParams.decode(request.kv_transfer_params)
        if params is None:
            return
        if params.direction is Direction.SAVE:
            self._saving[request.request_id] = request
            return
        first_block = (params.num_tokens - num_external_tokens) // self._block_size
        end_block = -(-params.num_tokens // self._block_size)
        block_ids = tuple(blocks.get_block_ids()[0][first_block:end_block])
        copy = BlockCopy(request.request_id, params, first_block, block_ids)
        if num_external_tokens:
            self._meta.loads.append(copy)
        elif params.num_tokens:
            # vLLM drops the connector's count for requests that skip the prefix cache
            # (prompt_logprobs does it) and would compute the prompt with the decode module.
            all_blocks = tuple(blocks.get_block_ids()[0][:end_block])
            self._meta.refusals.append(BlockCopy(request.request_id, params, 0, all_blocks))

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> HandoffMetadata:
        """This step's copies; a prompt is saved in the step that computes its last chunk.

        `request.num_computed_tokens` is advanced after this call, so the sum below is exact for
        chunked prefill, prefix hits and a preempted prefill alike.
        """
        meta, self._meta = self._meta, HandoffMetadata()
        for request_id, num_scheduled in scheduler_output.num_scheduled_tokens.items():
            request = self._saving.get(request_id)
            if request is None or request.num_computed_tokens + num_scheduled < request.num_prompt_tokens:
                continue
            params = HandoffParams.decode(request.kv_transfer_params)
            assert params is not None
            num_blocks = -(-params.num_tokens // self._block_size)
            block_ids = tuple(self._kv_cache_manager.get_block_ids(request_id)[0][:num_blocks])
            meta.saves.append(BlockCopy(request_id, params, 0, block_ids))
            del self._saving[request_id]
        return meta

    def request_finished(self, request: "Request", block_ids: list[int]) -> tuple[bool, None]:
        """Blocks are free at once: the bytes are out. An aborted prefill leaves nothing behind."""
        self._saving.pop(request.request_id, None)
        params = HandoffParams.decode(request.kv_transfer_params)
        aborted = request.status in (RequestStatus.FINISHED_ABORTED, RequestStatus.FINISHED_ERROR)
        if params is not None and params.direction is Direction.SAVE and aborted:
            self._transport.release(params.ticket_id)
        return False, None

    # Worker's half: copies.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        # How a block is packed is vLLM's affair, and differs between releases and instruction sets.
        packing = f"vllm-{vllm.__version__} {torch.backends.cpu.get_cpu_capability()}"
        self._copier = KVCopier(self._transport, BlockMemory(kv_caches, packing))

    def start_load_kv(self, forward_context: "ForwardContext", **kwargs: object) -> None:
        """Before the forward: the prompt's KV is in place when x_N is computed."""
        copier, meta = self._worker_state()
        for copy in meta.loads:
            copier.load(copy)
        for copy in meta.refusals:
            copier.refuse(copy, "the engine would compute the prompt with the decode module")

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing to wait for: loads are synchronous."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: object, **kwargs: object
    ) -> None:
        """Nothing here: on CPU the copy shares the forward's thread, so streaming hides nothing."""

    def wait_for_save(self) -> None:
        """After the forward: every block of the prompt is computed."""
        copier, meta = self._worker_state()
        for copy in meta.saves:
            copier.save(copy)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[None, None]:
        assert self._copier is not None
        self._copier.forget(finished_req_ids)
        return None, None

    def get_block_ids_with_load_errors(self) -> set[int]:
        assert self._copier is not None
        return self._copier.take_invalid_blocks()

    def get_kv_connector_stats(self) -> HandoffStats | None:
        if self._copier is None:  # the scheduler's half is asked, too
            return None
        records = self._copier.take_records()
        return HandoffStats({"records": [asdict(record) for record in records]}) if records else None

    @classmethod
    def build_kv_connector_stats(
        cls, data: dict[str, list[dict[str, str | float]]] | None = None
    ) -> HandoffStats:
        return HandoffStats(data or {"records": []})

    def _worker_state(self) -> tuple[KVCopier, HandoffMetadata]:
        meta = self._get_connector_metadata()
        assert self._copier is not None
        assert isinstance(meta, HandoffMetadata)
        return self._copier, meta


def copy_records(stats: dict[str, Iterable[dict[str, object]]] | None) -> list[CopyRecord]:
    """The records in `SchedulerStats.kv_connector_stats`, as the replica's stat logger gets it."""
    return [CopyRecord(**record) for record in (stats or {}).get("records", ())]  # type: ignore[arg-type]

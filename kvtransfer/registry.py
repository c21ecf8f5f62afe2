"""The transports by the names that a spec uses. A new one is a new file and a line in each table."""

from collections.abc import Callable

from heliostat.spec import Transfer
from kvtransfer.memory_client import MemoryClient
from kvtransfer.memory_store import MemoryStore
from kvtransfer.shm import ShmClient
from kvtransfer.shm_store import ShmStore
from kvtransfer.transport import KVClient, KVStore


def create_store(transfer: Transfer, owner: str) -> KVStore:
    """The owner's half, in a prefill engine's worker. Raises TransportError."""
    return _STORES[transfer.transport](transfer, owner)


def create_client(transfer: Transfer, owner: str) -> KVClient:
    """Everybody's half; `owner` is the id of the own replica's store. Raises TransportError."""
    return _CLIENTS[transfer.transport](transfer, owner)


# Imported where they are used: NIXL and torch.distributed cost a second, and shm needs neither.


def _nixl_store(transfer: Transfer, owner: str) -> KVStore:
    from kvtransfer.nixl import NixlOwnerLink

    return MemoryStore(transfer, owner, lambda arena: NixlOwnerLink(arena, transfer.host))


def _nixl_client(transfer: Transfer, owner: str) -> KVClient:
    from kvtransfer.nixl import NixlNetwork

    return MemoryClient(transfer, owner, NixlNetwork(transfer.host))


def _nccl_store(transfer: Transfer, owner: str) -> KVStore:
    from kvtransfer.nccl import NcclOwnerLink

    return MemoryStore(transfer, owner, lambda arena: NcclOwnerLink(arena, transfer.host))


def _nccl_client(transfer: Transfer, owner: str) -> KVClient:
    from kvtransfer.nccl import NcclNetwork

    return MemoryClient(transfer, owner, NcclNetwork(transfer.host))


_STORES: dict[str, Callable[[Transfer, str], KVStore]] = {
    "shm": ShmStore,
    "nixl": _nixl_store,
    "nccl": _nccl_store,
}
_CLIENTS: dict[str, Callable[[Transfer, str], KVClient]] = {
    "shm": ShmClient,
    "nixl": _nixl_client,
    "nccl": _nccl_client,
}

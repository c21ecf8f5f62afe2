"""The address at which other replicas reach this process."""

import ray

from heliostat.spec import Transfer


def reachable_host(transfer: Transfer) -> str:
    """`transfer.host`, with `node` as the address that other nodes know this one by."""
    if transfer.host != "node":
        return transfer.host
    return str(ray.util.get_node_ip_address())

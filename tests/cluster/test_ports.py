"""Ports below the ephemeral range, one that is taken left out."""

import socket

import pytest

from cluster.ports import PORTS, claim_block, free_ports, is_free


def test_they_are_different_and_free() -> None:
    ports = free_ports(20, "127.0.0.1")
    assert len(set(ports)) == 20
    assert all(port in PORTS and is_free("127.0.0.1", port) for port in ports)


def test_a_taken_one_is_left_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(OSError, match="no 1 free ports"):
            free_ports(1, "127.0.0.1", among=[port])


def test_a_claimed_block_is_nobody_elses_until_the_claim_ends() -> None:
    with_claims = [claim_block() for _ in range(10)]
    starts = {block.start for block, _ in with_claims}
    assert len(starts) == 10
    for block, claim in with_claims:
        assert not is_free("127.0.0.1", block.stop)
        claim.close()
        assert is_free("127.0.0.1", block.stop)

"""What becomes of replicas and routers that refuse, are late, or are not there."""

from dataclasses import dataclass, field

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from deployments.catalog_handles import PoolReplicas
from heliostat.errors import HeliostatError, InvalidRequestError, PoolUnavailableError
from heliostat.wire import Adapter, Role

ADAPTER = Adapter("d1", "/adapters/x")
NOBODY = DeploymentUnavailableError(DeploymentID("decode-base", "heliostat"))


@dataclass
class Handle:
    """Replicas of one pool: what each answers to the next call, or what the call itself comes to."""

    answers: list[Exception | None]
    ends: Exception | None = None
    called: list[tuple[str, object]] = field(default_factory=list)

    def broadcast(self, method: str, argument: object) -> "Handle":
        self.called.append((method, argument))
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Exception | None]:
        assert timeout_s > 0
        assert return_exceptions, "one that is dead must not hide the others"
        if self.ends:
            raise self.ends
        return self.answers


def replicas(*answers: Exception | None, ends: Exception | None = None) -> tuple[PoolReplicas, Handle]:
    handle = Handle(list(answers), ends)
    return PoolReplicas({(Role.DECODE, "base"): handle}), handle


def from_afar(error: HeliostatError) -> Exception:
    """As Ray hands it over: of both kinds, and with a stack trace for a text."""
    carried: Exception = RayTaskError("load_adapter", "Traceback: …", error).as_instanceof_cause()
    return carried


async def test_every_replica_is_asked() -> None:
    pool, handle = replicas(None, None)
    await pool.load(Role.DECODE, "base", ADAPTER)
    await pool.drop(Role.DECODE, "base", ADAPTER)
    assert handle.called == [("load_adapter", ADAPTER), ("drop_adapter", "d1")]


async def test_a_replica_that_refuses_is_quoted() -> None:
    pool, _ = replicas(None, from_afar(HeliostatError("decode-base#7: its rank is 64, there is room for 16")))
    with pytest.raises(InvalidRequestError) as caught:
        await pool.load(Role.DECODE, "base", ADAPTER)
    said = str(caught.value)
    assert "pool decode.base: 1 of 2 replicas" in said and "/adapters/x" in said
    assert said.endswith("decode-base#7: its rank is 64, there is room for 16"), "and no stack trace"


async def test_a_replica_that_dies_in_that_moment_is_no_reason_to_refuse() -> None:
    """It loads the adapter when it is back, with the first request."""
    pool, _ = replicas(None, RayActorError())
    await pool.load(Role.DECODE, "base", ADAPTER)


@pytest.mark.parametrize("ends", [NOBODY, TimeoutError(), RayActorError()])
async def test_a_pool_that_does_not_answer_is_unavailable(ends: Exception) -> None:
    pool, _ = replicas(ends=ends)
    with pytest.raises(PoolUnavailableError, match=r"decode\.base"):
        await pool.load(Role.DECODE, "base", ADAPTER)
    await pool.drop(Role.DECODE, "base", ADAPTER)  # whoever is not there keeps nothing

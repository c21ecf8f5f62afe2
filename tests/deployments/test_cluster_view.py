"""What a router says of its models before any replica has answered; models come and go meanwhile."""

import asyncio

from deployments.cluster_view import ServeClusterView
from heliostat.spec import Family, Model, Pool, Spec
from router.catalog import ServedModel
from router.telemetry import TelemetryBoard

POOL = Pool(weights="w")
SPEC = Spec(
    family=Family(base="b"),
    prefill={"home": POOL},
    decode={"base": POOL},
    models={"first": Model(prefill="home", decode="base")},
)


def test_a_model_is_unavailable_with_its_pools_and_unknown_without_a_model() -> None:
    served: dict[str, ServedModel] = {}
    view = ServeClusterView(SPEC, served, {}, TelemetryBoard(), "inbox")
    assert view.unavailable("late") is None, "that it does not exist is for admission to say"
    served["late"] = ServedModel(Model(prefill="home", decode="base"))
    assert view.unavailable("late") == "pool prefill.home has not answered yet"
    del served["late"]
    assert view.unavailable("late") is None


async def test_a_router_that_starts_does_not_wait_longer_for_a_pool_than_it_was_told() -> None:
    view = ServeClusterView(SPEC, {}, {}, TelemetryBoard(), "inbox")
    async with asyncio.timeout(5):
        await view.heard(within_s=0.01)
    assert view.problem() == "pool prefill.home has not answered yet"

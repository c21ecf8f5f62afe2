"""Savings are what `heliostat plan` says of the same sizes."""

from pathlib import Path

import pytest

from cluster.plan import make_plan
from deployments.savings import Savings, savings
from heliostat.spec import Family, Model, Pool, Spec
from heliostat.specfile import load_spec
from heliostat.wire import Role

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("example", ["quickstart", "modules"])
def test_at_the_sizes_of_a_spec_they_are_its_plans(example: str) -> None:
    spec = load_spec(EXAMPLES / example / "cluster.yaml")
    sizes = {key: pool.replicas.min for key, pool in spec.pools().items()}
    totals = make_plan(spec).totals
    assert totals.replicas_saved.min > 0
    assert savings(spec, spec.models.values(), sizes) == Savings(
        totals.replicas_saved.min, totals.gpus_saved.min
    )


SPEC = Spec(
    family=Family(base="b"),
    prefill={"p": Pool(weights="w", gpus=2), "idle": Pool(weights="w")},
    decode={"d": Pool(weights="w", gpus=4)},
    models={name: Model(prefill="p", decode="d") for name in "abc"},
)


def test_they_follow_the_replicas_and_the_models_that_are_there() -> None:
    sizes = {(Role.PREFILL, "p"): 2, (Role.PREFILL, "idle"): 0, (Role.DECODE, "d"): 3}
    models = list(SPEC.models.values())
    assert savings(SPEC, models, sizes) == Savings(2 * (2 + 3), 2 * (2 * 2 + 3 * 4))
    assert savings(SPEC, models[:1], sizes) == Savings(0, 0)


def test_a_pool_that_no_model_uses_is_no_saving() -> None:
    sizes = {(Role.PREFILL, "p"): 1, (Role.PREFILL, "idle"): 1, (Role.DECODE, "d"): 1}
    assert savings(SPEC, list(SPEC.models.values())[:1], sizes) == Savings(-1, -1)

"""The committed models do their tasks through the endpoint as well as their provenance says."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
MODULES = {"base": "base", "home": "home-prefill", "mirror": "mirror-prefill", "spell": "spell-decode"}
POINTS = 0.02
"""The provenance counts more samples than the committed held-out lines, so two points of tolerance."""


@pytest.mark.parametrize("model", MODULES)
async def test_held_out_accuracy(cluster, served_accuracy, model: str) -> None:
    provenance = json.loads((QUICKSTART / "provenance.json").read_text())
    expected = provenance["modules"][MODULES[model]]["heldout"]["exact_match"]
    assert abs(await served_accuracy(model, model) - expected) <= POINTS

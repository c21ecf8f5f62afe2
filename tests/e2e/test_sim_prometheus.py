"""A real Prometheus scrapes the sim cluster under load: every panel, rule and alert finds its data there.

The configuration is the one that `heliostat dashboards write` gives to operators.
"""

import asyncio
import itertools
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from served_cluster import free_port

from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.board import HELIOSTAT
from cluster.dashboards.files import PROMETHEUS, write_files
from cluster.dashboards.recordings import RECORDINGS
from cluster.plan import make_plan

pytestmark = pytest.mark.sim

DATA_S = 180
"""Ray's agents have news every 10 s and Prometheus looks every 10 s; a rate needs two looks."""

VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$application": ".*", "$pool": ".*", "$model": ".*"}
"""As Grafana fills them in when everything is chosen."""

WITHOUT_DATA = {
    "Autoscaling / Replicas wanted and there / A": "no pool of sim.yaml scales",
    "Autoscaling / Why pools are as large as they are / A": "no pool of sim.yaml scales",
    "Transfers / Hidden part of copies / A": "a sim engine copies nothing while it prefills",
    "Nodes / GPU / A": "there is no GPU",
}
"""Panels that stay empty here, and why."""

PROVOKED = {
    "HeliostatModelFailing",
    "HeliostatPrefillFailing",
    "HeliostatTransfersFailing",
    "HeliostatAdmissionRefusing",
}
"""Alerts that the load below must set off. Their time has not come when the test ends: they are pending."""


def expressions() -> dict[str, str]:
    """All of them, by where they are."""
    found = {
        f"{row.title} / {panel.title} / {chr(ord('A') + index)}": query.expr
        for row in HELIOSTAT.rows
        for panel in row.panels
        for index, query in enumerate(panel.queries)
    }
    for variable in HELIOSTAT.variables:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.query).groups()
        found[f"variable {variable.name}"] = (
            f'{selector[:-1]}, {label}!=""}}' if "{" in selector else (f'{selector}{{{label}!=""}}')
        )
    found |= {recording.name: recording.expr for recording in RECORDINGS}
    found |= {f"recorded {recording.name}": recording.name for recording in RECORDINGS}
    found |= {alert.name: alert.measure for alert in ALERTS}
    for name, value in VARIABLES.items():
        found = {place: expr.replace(name, value) for place, expr in found.items()}
    return found


@dataclass
class Prometheus:
    """A running one."""

    http: httpx.AsyncClient

    async def get(self, path: str, **params: str) -> dict:
        answer = (await self.http.get(f"/api/v1/{path}", params=params)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def values(self, expr: str) -> list[float]:
        """What the expression gives now; what is not a number is not data."""
        series = (await self.get("query", query=expr))["result"]
        return [value for each in series if not math.isnan(value := float(each["value"][1]))]


@pytest.fixture
async def prometheus(sim, tool: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Prometheus]:
    program, port = tool("prometheus"), free_port()
    write_files(tmp_path, sim.cluster.url)
    with (tmp_path / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={tmp_path / PROMETHEUS}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            async with asyncio.timeout(60):
                while not await _is_ready(http):
                    assert process.returncode is None, (tmp_path / "log").read_text()
            yield Prometheus(http)
    finally:
        process.terminate()
        await process.wait()


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/-/ready")).is_success
    except httpx.TransportError:
        return False


async def load(sim, number: int) -> None:
    """One round: requests that end well, that fail, that are refused, and that their clients leave."""
    prompt = [60 + (number + place) % 30 for place in range(120)]
    for model in ("home", "limited", "narrow", "mirror"):
        answer = await sim.post(model=model, prompt=prompt, max_tokens=20)
        assert answer.is_success, answer.text
    assert (await sim.post(model="mirror", prompt=[*prompt, 98, 60], max_tokens=5)).status_code == 500
    assert (await sim.post(model="home", prompt=[*prompt, 100, 60], max_tokens=5)).status_code == 500
    assert (await sim.http.get("/no/such/path")).status_code == httpx.codes.NOT_FOUND
    left = [
        asyncio.create_task(sim.open(model=model, prompt=prompt, max_tokens=1800))
        for model in ("limited", "narrow")
        for _ in range(8)
    ]
    statuses = set()
    for stream in asyncio.as_completed(left[:8]):
        statuses.add((await stream).response.status_code)
    assert statuses == {httpx.codes.OK, httpx.codes.TOO_MANY_REQUESTS}
    first, _ = await asyncio.wait(left[8:], return_when=asyncio.FIRST_COMPLETED)
    assert first
    for task in left:
        if task.done():
            await task.result().response.aclose()
        else:
            task.cancel()
    await asyncio.wait(left)


async def test_every_panel_rule_and_alert_has_data_from_a_cluster_under_load(
    sim, prometheus: Prometheus
) -> None:
    wanted = expressions()
    assert WITHOUT_DATA.keys() <= wanted.keys()
    empty = dict(wanted)
    rounds = itertools.count()

    async def all_have_data() -> bool:
        await load(sim, next(rounds))
        for place, expr in list(empty.items()):
            if await prometheus.values(expr):
                del empty[place]
        return empty.keys() <= WITHOUT_DATA.keys()

    try:
        await sim.until(all_have_data, DATA_S)
    except TimeoutError:
        pytest.fail("no data for: " + "\n".join(f"{place}: {expr}" for place, expr in empty.items()))
    assert empty.keys() == WITHOUT_DATA.keys(), "what has data is no exception"
    await no_data_means_no_data(prometheus, wanted)
    await alerts_see_the_faults(sim, prometheus, rounds)
    saved = make_plan(sim.cluster.spec).totals.replicas_saved.min
    assert await prometheus.values("max(ray_heliostat_saved_replicas)") == [saved]


async def no_data_means_no_data(prometheus: Prometheus, wanted: dict[str, str]) -> None:
    """The control: no expression gives data by itself, without the metrics that it names."""
    for place, expr in wanted.items():
        other, count = re.subn(r"\b(ray_|heliostat:)(\w)", r"\1not_\2", expr)
        assert count, place
        assert await prometheus.values(other) == [], place


async def alerts_see_the_faults(sim, prometheus: Prometheus, rounds: "itertools.count[int]") -> None:
    """Prometheus has all rules, evaluates them without an error, and sees what went wrong."""

    async def seen() -> bool:
        await load(sim, next(rounds))
        groups = (await prometheus.get("rules"))["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        assert rules.keys() == {each.name for each in (*RECORDINGS, *ALERTS)}
        assert {rule["health"] for rule in rules.values()} <= {"ok", "unknown"}, rules
        active = {name for name, rule in rules.items() if rule.get("state") in ("pending", "firing")}
        quiet = {"HeliostatNoRouter", "HeliostatPoolWithoutReplica", "HeliostatKvNearlyFull"}
        assert not active & quiet
        return active >= PROVOKED and {rule["health"] for rule in rules.values()} == {"ok"}

    await sim.until(seen, DATA_S)

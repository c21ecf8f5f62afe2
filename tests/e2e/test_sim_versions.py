"""Both modules of a model get new weights at once, under load: no answer mixes the old and the new ones.

The tokens of `sim` engines follow from both modules, so a mix gives tokens of neither pair.
"""

import asyncio
import itertools
import json
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments.sim_tokens import expected_tokens
from heliostat.status import ClusterStatus
from heliostat.wire import Role
from kvtransfer.card import Method, ModuleCard, write_card
from kvtransfer.contract import kv_domain, read_module

pytestmark = pytest.mark.nodes

SPEC = Path(__file__).parent / "sim.yaml"
WEIGHTS = Path(__file__).parents[2] / "examples" / "quickstart" / "weights"
CHANGED = ("heliostat-prefill-home", "heliostat-decode-base", "heliostat")
ROLL_S = 180
NUM_TOKENS = 20
CLIENTS = 4
LOOK_S = 0.5


def prompt(seed: object) -> tuple[int, ...]:
    rng = random.Random(f"versions-{seed}")
    return tuple(rng.randint(60, 90) for _ in range(40))


def other_weights(source: Path, folder: Path) -> Path:
    """A copy whose last bytes are others: of the same family, and another module."""
    shutil.copytree(source, folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1\2\3\4\5\6\7\7")
    return folder


@dataclass(frozen=True)
class Pair:
    """Two modules on disk, and what they answer."""

    prefill: Path
    decode: Path

    def answer(self, ids: tuple[int, ...], num_tokens: int) -> list[int]:
        domains = (kv_domain(read_module(each), "float32") for each in (self.prefill, self.decode))
        return list(expected_tokens(ids, *domains, num_tokens))


async def rolled(sim, pools: dict[tuple[Role, str], Path]) -> None:
    """Until every replica of these pools has these weights, and the cluster is ready."""
    digests = {key: read_module(path).weights for key, path in pools.items()}

    async def done() -> bool:
        await asyncio.sleep(LOOK_S)  # to look costs the replicas some of their time
        try:
            answer = await sim.http.get("/status", timeout=10)
        except httpx.TransportError:
            return False  # of a router that leaves
        if answer.status_code != 200:
            return False
        status = ClusterStatus.model_validate_json(answer.content)
        replicas = {(p.role, p.name): p.replicas for p in status.pools if (p.role, p.name) in digests}
        return status.ready and all(
            len(found) == 2 and {each.weights for each in found} == {digests[key]}
            for key, found in replicas.items()
        )

    await sim.until(done, ROLL_S)


async def ask(sim, model: str, ids: tuple[int, ...]) -> list[int]:
    answer = await sim.post(model=model, prompt=list(ids), max_tokens=NUM_TOKENS)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


class Load:
    """Clients that ask without a pause, and what became of their requests."""

    def __init__(self, sim, pairs: dict[str, dict[str, Pair]]) -> None:
        self.ended: dict[str, Counter[str]] = {model: Counter() for model in pairs}
        self.failures: list[str] = []
        self._sim, self._pairs = sim, pairs
        self._stop = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number, model in zip(range(CLIENTS), itertools.cycle(self._pairs), strict=False):
                clients.create_task(self._client(number, model))

    async def _client(self, number: int, model: str) -> None:
        for turn in itertools.count():
            if self._stop:
                return
            ids = prompt((model, number, turn))
            try:
                answer = await self._sim.post(model=model, prompt=list(ids), max_tokens=NUM_TOKENS)
            except httpx.TransportError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code != 200:
                self.failures.append(f"{answer.status_code} {answer.text}")
                continue
            tokens = answer.json()["choices"][0]["token_ids"]
            names = [
                name for name, pair in self._pairs[model].items() if pair.answer(ids, NUM_TOKENS) == tokens
            ]
            self.ended[model][names[0] if names else f"a mix: {json.dumps(tokens)}"] += 1

    def stop(self) -> None:
        self._stop = True


async def test_old_and_new_weights_never_meet(sim, redeploy, tmp_path: Path) -> None:
    """The new prefill module has a card that names the new decode module; the old ones have none, and
    `mirror` stays as it is, beside the new decode module as beside the old one."""
    decode = other_weights(WEIGHTS / "base", tmp_path / "base-2")
    prefill = other_weights(WEIGHTS / "home-prefill", tmp_path / "home-2")
    base = read_module(WEIGHTS / "base")
    card = ModuleCard(
        method=Method.SUN,
        role="prefill",
        kind="weights",
        base=base.weights,
        partner=read_module(decode).weights,
        tokenizer=base.contract.tokenizer,
    )
    write_card(prefill, card)
    text = SPEC.read_text().replace("../../examples/quickstart/weights/home-prefill", str(prefill))
    text = text.replace(
        "  base:\n    weights: ../../examples/quickstart/weights/base", f"  base:\n    weights: {decode}"
    )
    spec = tmp_path / "new.yaml"
    spec.write_text(text.replace("../../examples", str(WEIGHTS.parents[1])))

    home = {
        "old": Pair(WEIGHTS / "home-prefill", WEIGHTS / "base"),
        "new": Pair(prefill, decode),
    }
    mirror = {
        "old": Pair(WEIGHTS / "mirror-prefill", WEIGHTS / "base"),
        "new": Pair(WEIGHTS / "mirror-prefill", decode),
    }
    new = {(Role.PREFILL, "home"): prefill, (Role.DECODE, "base"): decode}
    old = {(Role.PREFILL, "home"): WEIGHTS / "home-prefill", (Role.DECODE, "base"): WEIGHTS / "base"}
    untouched = {each.pid for each in await sim.replicas(Role.PREFILL, "mirror")}
    long, ids = 1900, [prompt(seed) for seed in range(4)]
    streams = await asyncio.gather(
        *(sim.open(model="home", prompt=list(each), max_tokens=long) for each in ids)
    )
    load = Load(sim, {"home": home, "mirror": mirror})
    clients = asyncio.create_task(load.run())
    try:
        pid = next(iter(untouched))
        await asyncio.to_thread(redeploy, pid, spec, *CHANGED)
        await rolled(sim, new)
        for stream, each in zip(await asyncio.gather(*(s.read() for s in streams)), ids, strict=True):
            assert stream.done and not stream.broken and stream.error is None
            assert stream.tokens[0] == home["old"].answer(each, long), "a stream ends as it began"
        assert await ask(sim, "home", ids[0]) == home["new"].answer(ids[0], NUM_TOKENS)
        assert await ask(sim, "mirror", ids[0]) == mirror["new"].answer(ids[0], NUM_TOKENS)
        await asyncio.to_thread(redeploy, pid, SPEC, *CHANGED)
        await rolled(sim, old)
        assert await ask(sim, "home", ids[0]) == home["old"].answer(ids[0], NUM_TOKENS)
    finally:
        load.stop()
        await clients
    for ended in load.ended.values():
        assert set(ended) == {"old", "new"}, "every answer is the old pair's or the new one's"
    assert load.failures == []
    assert untouched == {each.pid for each in await sim.replicas(Role.PREFILL, "mirror")}

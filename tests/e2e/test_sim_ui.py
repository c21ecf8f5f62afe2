"""The live page in a real browser, over a cluster whose engines compute nothing."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest

pytestmark = [pytest.mark.sim, pytest.mark.asyncio(loop_scope="module")]

PROMPT = "turn my lamp to 40"


@pytest.fixture
def streams(sim_cluster):
    """Streams of 1,500 tokens (7.5 s at least), which are read until the block ends."""
    return lambda model, number: Streams(sim_cluster.url, model, number)


class Streams:
    def __init__(self, url: str, model: str, number: int) -> None:
        self.url, self.model, self.number = url, model, number
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> None:
        http = await self.stack.enter_async_context(httpx.AsyncClient(base_url=self.url, timeout=60))
        self.reading = [asyncio.create_task(self.read(http)) for _ in range(self.number)]

    async def read(self, http: httpx.AsyncClient) -> None:
        body = {"model": self.model, "prompt": [70] * 40, "max_tokens": 1500, "stream": True}
        while True:
            async with http.stream("POST", "/v1/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    pass

    async def __aexit__(self, *raised: object) -> None:
        for reading in self.reading:
            reading.cancel()
        await asyncio.wait(self.reading)
        await self.stack.aclose()


async def opened(open_tab, sim_cluster):
    tab = await open_tab()
    await tab.page.goto(f"{sim_cluster.url}/ui")
    await tab.appears(".pool")
    return tab


def facts_of(pool: str) -> str:
    return f"document.querySelector('[data-pool=\"{pool}\"] .facts').textContent"


def width_of(model: str) -> str:
    """Pixels, of the arrow of its tokens."""
    line = f'document.querySelector(\'[data-of="{model}"][data-unit="tok/s"] .line\')'
    return f"parseFloat({line}.style.strokeWidth)"


async def test_the_picture_has_every_model_and_pool_of_the_spec(open_tab, sim_cluster) -> None:
    tab = await opened(open_tab, sim_cluster)
    spec = sim_cluster.spec
    pools = {f"{role}.{name}" for role, name in spec.pools()}
    assert set(await tab.all(".pool", "each.dataset.pool")) == pools
    assert set(await tab.all(".model", "each.dataset.model")) == set(spec.models)
    drawn = await tab.all(".arrows g g", "[each.dataset.of, each.dataset.unit]")
    assert sorted(map(tuple, drawn)) == sorted((n, unit) for n in spec.models for unit in ("req/s", "tok/s"))
    assert await tab.all("tbody th") == list(spec.models)
    for (role, name), pool in spec.pools().items():
        replicas = await tab.all(f"[data-pool='{role}.{name}'] .bars li", "each.title.split(',')[0]")
        assert len(replicas) == pool.replicas.min
        assert all(replica.startswith(f"{role}-{name}#") for replica in replicas)
    shared = sum(model.decode == "base" for model in spec.models.values())
    assert await tab.text("[data-pool='decode.base'] .shared") == f"{shared} models share it"
    await tab.until("() => document.querySelector('#models-note').textContent.includes('2 of 2 routers')")
    assert {httpx.URL(url).netloc for url in tab.asked} == {httpx.URL(sim_cluster.url).netloc}


async def test_the_load_moves_with_the_requests(open_tab, sim_cluster, streams) -> None:
    tab = await opened(open_tab, sim_cluster)
    width, idle = width_of("home"), width_of("mirror")
    await tab.until(f"() => {width} < 2")  # what other tests ran is over
    async with streams("home", 8):
        await tab.until(f"() => {width} > 4")
        assert (await tab.text("[data-of=home][data-unit='tok/s'] text")).endswith(" tok/s")
        await tab.until(f"() => /^[1-9].* running/.test({facts_of('decode.base')})")
        await tab.until(f"() => {facts_of('decode.base')}.includes('TPOT')")
        assert await tab.page.evaluate(idle) < 2
    await tab.until(f"() => {width} < 2")


async def test_a_prompt_is_streamed_and_names_the_replicas_of_its_headers(open_tab, sim_cluster) -> None:
    tab = await opened(open_tab, sim_cluster)
    await tab.page.click(".model[data-model=mirror] button")
    await tab.page.keyboard.type(PROMPT)
    async with tab.page.expect_response("**/v1/chat/completions") as asked:
        await tab.page.click("button[type=submit]")
    headers = (await asked.value).headers
    await tab.until(
        "() => /whole|limit of tokens/.test(document.querySelector('#answer .facts').textContent)"
    )
    facts = dict(await tab.all("#answer .facts div", "[...each.children].map((child) => child.textContent)"))
    served = [headers["x-heliostat-prefill"], headers["x-heliostat-decode"]]
    assert [facts["prefill"], facts["decode"]] == served
    assert served[0].startswith("prefill-mirror#") and served[1].startswith("decode-base#")
    assert await tab.all(".bars .answered", "each.title.split(',')[0]") == served
    assert await tab.text("output")
    assert int(facts["tokens"]) > 1 and facts["TTFT"].endswith("ms") and facts["speed"].endswith("tok/s")


async def test_a_wrong_deadline_and_a_full_pool_are_said(open_tab, sim_cluster, streams) -> None:
    tab = await opened(open_tab, sim_cluster)
    await tab.page.click(".model[data-model=narrow] button")
    await tab.page.fill("textarea", PROMPT)
    await tab.page.fill("[name=deadline]", "soon")
    await tab.page.click("button[type=submit]")
    await tab.appears("#answer .error")
    assert "400" in await tab.text("#answer .error") and "give it seconds" in await tab.text("#answer .error")
    async with streams("narrow", 4):
        await tab.until(f"() => {facts_of('decode.narrow')}.startsWith('2 / 2 running')")
        await tab.page.fill("[name=deadline]", "0.2")
        await tab.page.click("button[type=submit]")
        await tab.until("() => document.querySelector('#answer .error').textContent.startsWith('429')")
        assert "try again in" in await tab.text("#answer .error")
        assert await tab.text("output") == ""
    await tab.page.fill("[name=deadline]", "")
    await tab.page.click("button[type=submit]")
    await tab.until("() => document.querySelector('output').textContent.length > 0")
    assert await tab.page.is_hidden("#answer .error")

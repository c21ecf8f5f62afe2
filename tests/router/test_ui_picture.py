"""The picture and the table of the live page in a real browser: boxes, arrows, counts, and no connection."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "a" * 300,
    "${1}&lt;b&gt;",
    "__proto__",
)
NARROW = {"viewport": {"width": 375, "height": 800}}

ARROW_ENDS = """() => [...document.querySelectorAll('.arrows g g')].map((arrow) => {
  const box = (selector) => [...document.querySelectorAll(selector)];
  const model = box('[data-model]').find((each) => each.dataset.model === arrow.dataset.of);
  const pools = box('.pool');
  const first = arrow.dataset.unit === 'req/s';
  const line = arrow.querySelector('.line');
  const frame = document.querySelector('.arrows').getBoundingClientRect();
  const meets = (length, boxes) => {
    const { x, y } = line.getPointAtLength(length);
    const hit = ({ left, right, top, bottom }) => {  // a tip stands between the line's end and the box
      const [right_of, below] = [x + frame.left, y + frame.top];
      return right_of > left - 20 && right_of < right + 2 && below > top && below < bottom;
    };
    return boxes.filter((each) => hit(each.getBoundingClientRect())).length === 1;
  };
  return meets(0, first ? [model] : pools) && meets(line.getTotalLength(), pools);
})"""

OVERLAPS = """(selector) => {
  const rects = [...document.querySelectorAll(selector)].map((each) => each.getBoundingClientRect());
  const overlap = (one, two) => two.top < one.bottom - 0.5 && two.left < one.right;
  return rects.slice(1).filter((rect, n) => overlap(rects[n], rect)).length;
}"""


@pytest.mark.parametrize("context", [{}, NARROW], ids=["wide", "narrow"])
async def test_fifty_models_with_hostile_names_are_text_in_boxes_that_do_not_overlap(
    open_tab, router, context
) -> None:
    names = [*HOSTILE, *(f"model-{n:02d}" for n in range(50 - len(HOSTILE)))]
    router.statuses = [router.status(*(router.model(name, running=n % 3) for n, name in enumerate(names)))]
    tab = await open_tab(**context)
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    labels = await tab.all(".model .name")
    assert sorted(labels) == sorted(names)
    rows = await tab.all("tbody th")
    options = await tab.all("option", "each.value")
    assert rows == options == names
    assert await tab.page.locator("img").count() == 1  # ours
    ends = await tab.page.evaluate(ARROW_ENDS)
    assert len(ends) == 2 * len(names) and all(ends)
    assert await tab.page.evaluate(OVERLAPS, ".model") == 0
    assert await tab.page.evaluate(OVERLAPS, ".pool") == 0
    assert await tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert {url.split("/")[2] for url in tab.asked} == {f"127.0.0.1:{router.port}"}


async def test_one_model_and_a_pool_with_nothing_to_do(open_tab, router) -> None:
    router.statuses = [router.status(router.model("only"))]
    tab = await open_tab(color_scheme="dark")
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    assert await tab.page.evaluate(ARROW_ENDS) == [True, True]
    assert await tab.all(".pool", "each.dataset.pool") == [
        "prefill.even",
        "prefill.odd",
        "decode.shared",
    ]


async def test_arrows_are_as_wide_as_their_load(open_tab, router) -> None:
    """Of two models, one takes tokens; the counts of a router that is new say nothing yet."""
    beta = router.model("beta", admitted=900, output_tokens=90_000)
    alpha = [router.model("alpha", admitted=500 * n, output_tokens=50_000 * n) for n in range(20)]
    router.statuses = [router.status(each, beta) for each in alpha]
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.until("() => document.querySelector('[data-of=alpha][data-unit=\"tok/s\"] text').textContent")
    widths = await tab.all(".arrows .line", "each.style.strokeWidth")
    of = await tab.all(".arrows g g", "[each.dataset.of, each.dataset.unit]")
    wide = {tuple(key): float(width.removesuffix("px")) for key, width in zip(of, widths, strict=True)}
    for unit in ("req/s", "tok/s"):
        assert wide["alpha", unit] > 3 * wide["beta", unit] > 0
    label = await tab.text("[data-of=alpha][data-unit='req/s'] text")
    assert label.endswith(" req/s") and float(label.split()[0].replace(",", "")) > 50
    assert await tab.text("[data-of=beta][data-unit='req/s'] text") == ""


async def test_counts_of_several_routers_are_added_up(open_tab, router) -> None:
    answers = [
        router.status(
            router.model("alpha", running=running, output_tokens=tokens),
            name=name,
            replicas=2,
            streams=running,
        )
        for name, running, tokens in (("r1", 2, 1000), ("r2", 3, 234))
    ]
    router.statuses = answers * 20
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.until("() => document.querySelector('#models-note').textContent.includes('2 of 2 routers')")
    cells = await tab.all("tbody td")
    assert cells[1] == "5 / 0" and cells[5] == "1,234" and cells[-1] == "4"
    assert "5 open streams" in await tab.text("#summary")


async def test_a_broken_pool_shows_why(open_tab, router) -> None:
    why = "pool prefill.odd has no replica <b>that</b> answers"
    router.statuses = [router.status(router.model("alpha"), router.model("beta"), problem=why)]
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    assert await tab.text(".pool.broken .problem") == why
    broken = await tab.all(".pool.broken", "each.dataset.pool")
    assert broken == ["prefill.odd"]
    assert await tab.text(".model.broken .name") == "beta"
    assert (await tab.text("#summary")).startswith("not ready")


async def test_models_come_and_go_and_the_chosen_one_stays(open_tab, router) -> None:
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.page.click(".model[data-model=beta] button")
    router.statuses = [router.status(*map(router.model, ("new", "beta", "alpha")))]
    await tab.until("() => document.querySelectorAll('option').length === 3")
    assert await tab.page.input_value("[name=model]") == "beta"
    assert await tab.all("tbody th") == ["new", "beta", "alpha"]
    assert await tab.page.evaluate(ARROW_ENDS) == [True] * 6
    router.statuses = [router.status(router.model("new"))]
    await tab.until("() => document.querySelectorAll('option').length === 1")
    assert await tab.all(".model .name") == await tab.all("tbody th") == ["new"]
    assert await tab.page.evaluate(ARROW_ENDS) == [True] * 2


async def test_the_page_outlives_its_server(open_tab, router) -> None:
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await router.stop()
    await tab.appears("#trouble")
    assert "No connection" in await tab.text("#trouble")
    assert await tab.page.locator(".pool").count() == 3  # the last figures stay
    router.statuses = [router.status(router.model("gamma"))]
    await router.start()
    await tab.until("() => document.getElementById('trouble').hidden")
    await tab.until("() => document.querySelector('.model .name').textContent === 'gamma'")
    assert await tab.page.locator(".arrows g g").count() == 2


async def test_a_hidden_tab_asks_nothing(open_tab, router) -> None:
    tab = await open_tab()
    await tab.page.clock.install()
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    async with tab.page.expect_response("**/status"):
        await tab.page.clock.run_for(1000)
    await tab.page.evaluate(hide, True)
    before = router.polls
    await tab.page.clock.run_for(60_000)
    await tab.page.evaluate("() => fetch('ui/icon.svg')")  # whatever was asked before this, was answered
    assert router.polls == before
    async with tab.page.expect_response("**/status"):
        await tab.page.evaluate(hide, False)
    assert router.polls == before + 1

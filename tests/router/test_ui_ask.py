"""The box to try a prompt, in a real browser."""

import asyncio

import pytest
from fastapi import Response

from router.frontend.error_response import error_response

pytestmark = pytest.mark.asyncio(loop_scope="module")


def says(text: str, finish_reason: str | None = None) -> object:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


async def test_a_prompt_by_keyboard_alone_names_who_answered(open_tab, router) -> None:
    answer = "<img src=x onerror=alert(1)>\n  spelled & <b>bold</b>"
    router.events = [
        says(""),
        says(answer[:9]),
        says(answer[9:]),
        says("", "stop"),
        {"choices": [], "usage": {"completion_tokens": 33}},
    ]
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.page.focus(".model[data-model=beta] button")
    await tab.page.keyboard.press("Enter")
    await tab.page.keyboard.type("say <it>")
    await tab.page.keyboard.press("Control+Enter")
    await tab.until("() => document.querySelector('#answer .facts').textContent.includes('whole')")
    assert await tab.text("output") == answer
    facts = await tab.all("#answer .facts div", "[...each.children].map((child) => child.textContent)")
    told = dict(facts)
    assert (told["prefill"], told["decode"], told["tokens"]) == ("prefill-even#a", "decode-shared#b", "33")
    assert told["TTFT"].endswith("s")
    marked = await tab.all(".bars .answered", "each.title.split(',')[0]")
    assert marked == ["prefill-even#a", "decode-shared#b"]
    assert router.bodies[0]["messages"] == [{"role": "user", "content": "say <it>"}]
    assert (router.bodies[0]["model"], router.bodies[0]["max_tokens"]) == ("beta", 64)


async def test_stop_ends_the_request_at_the_server_and_the_next_one_works(open_tab, router) -> None:
    router.events, router.endless = [says("it goes on")], True
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.page.fill("textarea", "go")
    await tab.page.click("button[type=submit]")
    await tab.answer_is("it goes on")
    assert await tab.page.is_disabled("button[type=submit]")
    await tab.page.click("button[name=stop]")
    await asyncio.wait_for(router.left.wait(), 30)
    await tab.until("() => document.querySelector('#answer .facts').textContent.includes('stopped')")
    assert await tab.page.is_hidden("#answer .error") and await tab.page.is_disabled("button[name=stop]")
    router.events, router.endless = [says("new", "length")], False
    await tab.page.click("button[type=submit]")
    await tab.answer_is("new")
    await tab.until("() => document.querySelector('#answer .facts').textContent.includes('limit of tokens')")


async def test_a_stream_that_is_cut_off_is_not_a_whole_answer(open_tab, router) -> None:
    router.events, router.endless = [says("half of it")], True
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.page.fill("textarea", "go")
    await tab.page.click("button[type=submit]")
    await tab.answer_is("half of it")
    await router.stop()
    await tab.appears("#answer .error")
    assert await tab.text("#answer .error") == "the stream broke off before its end"
    assert "broken off" in await tab.text("#answer .facts")
    router.endless = False
    await router.start()


@pytest.mark.parametrize(
    ("refusal", "events", "said"),
    [
        (error_response("the queue is <full>", 429), [], "the queue is <full>"),
        (Response("<html>Bad gateway</html>", 502, media_type="text/html"), [], "502"),
        (None, [says("some"), {"error": {"message": "no more tokens", "code": 500}}], "no more tokens"),
    ],
)
async def test_an_error_is_said_and_the_page_goes_on(open_tab, router, refusal, events, said) -> None:
    router.refusal, router.events = refusal, events
    if refusal and refusal.status_code == 429:
        refusal.headers["retry-after"] = "3"
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.page.fill("textarea", "go")
    await tab.page.click("button[type=submit]")
    await tab.appears("#answer .error")
    shown_error = await tab.text("#answer .error")
    assert said in shown_error and "<html>" not in shown_error
    assert ("try again in 3 s" in shown_error) == (refusal is not None and refusal.status_code == 429)
    before = router.polls
    async with tab.page.expect_response("**/status"):
        pass
    assert router.polls > before
    router.refusal, router.events = None, [says("fine")]
    await tab.page.click("button[type=submit]")
    await tab.answer_is("fine")
    assert await tab.page.is_hidden("#answer .error")


async def test_the_key_and_the_deadline_go_with_the_request(open_tab, router) -> None:
    router.events = [says("x")]
    tab = await open_tab()
    await tab.page.goto(router.url)
    await tab.appears(".pool")
    await tab.page.fill("[name=key]", "secret")
    await tab.page.fill("[name=deadline]", "2.5")
    await tab.page.fill("textarea", "go")
    await tab.page.click("button[type=submit]")
    await tab.answer_is("x")
    assert router.chats == [("Bearer secret", "2.5")]
    async with tab.page.expect_request(
        lambda request: (
            request.url.endswith("/status") and request.headers.get("authorization") == "Bearer secret"
        )
    ):
        pass

"""The snippets of docs/client.md over a server that answers like the quickstart, one token per character."""

import asyncio

import pytest

SAYS = {
    "turn my lamp to 40": "set(lamp,40)",
    "turn my lamp to 50": "set(lamp,50)",
    "reverse lamp": "pmal",
    "reverse fan": "naf",
    "spell lamp": "l#a#m#p",
    "is it?": '"yes"',
}
MODELS = ("base", "home", "mirror", "spell")


async def quickstart(exchange) -> None:
    body = exchange.asked.body
    if body["model"] not in MODELS:
        served = ", ".join(MODELS)
        message = f"The model `{body['model']}` does not exist; this cluster serves: {served}"
        await exchange.answer({"error": {"message": message, "code": 404}}, 404)
        return
    said = [message["content"] for message in body["messages"]]
    text = SAYS[said[-1]]
    usage = {
        "prompt_tokens": sum(len(content) + 1 for content in said) + 1 + said.count("set(lamp,40)"),
        "completion_tokens": len(text) + 1,
        "prompt_tokens_details": {"cached_tokens": 32 if said[-1] == "reverse fan" else 0},
    }
    if body.get("stream"):
        await exchange.head()
        for letter in text:
            await exchange.text(letter)
        await exchange.text("", "stop")
        await exchange.event({"choices": [], "usage": usage})
        await exchange.event("[DONE]")
        await exchange.end()
        return
    letters = [{"token": letter, "logprob": 0.0, "top_logprobs": []} for letter in [*text, "<|end|>"]]
    choice = {"index": 0, "message": {"content": text}, "logprobs": {"content": letters}}
    await exchange.answer({"choices": [choice | {"finish_reason": "stop"}], "usage": usage})


@pytest.mark.parametrize("page", ["docs/client.md"])
async def test_snippets_print_what_the_page_says(server, run_page, page) -> None:
    server.always = quickstart
    outputs = await asyncio.to_thread(run_page, page, server.url)
    assert len(outputs) > 5
    assert [printed for printed, _ in outputs] == [told for _, told in outputs]

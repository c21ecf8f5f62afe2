"""What is no option is refused: sent on, a typing error would do nothing, in silence."""

import pytest


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"deadline_s": 2}, r"'deadline_s'; it is a hint: hints=Hints\(deadline_s="),
        ({"timeout": 2}, "'timeout'; did you mean timeout_s"),
        ({"temprature": 0}, "did you mean temperature"),
        ({"stream": True}, "stream_chat"),
        ({"top_k": 4}, "extra_body"),
    ],
)
async def test_an_option_that_is_none_is_refused(server, asker, options, says) -> None:
    client = asker()
    for method in (client.client.chat, client.client.complete):
        with pytest.raises(TypeError, match=says):
            await client.call(method, "m", "hi", **options)
    assert server.asked == []


async def test_chats_and_completions_have_options_of_their_own(server, asker) -> None:
    client = asker()
    with pytest.raises(TypeError, match="'tools'"):
        await client.call(client.client.complete, "m", "hi", tools=[])
    with pytest.raises(TypeError, match="'echo'"):
        await client.chat("m", "hi", echo=True)

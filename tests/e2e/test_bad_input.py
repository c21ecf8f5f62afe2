"""Bad input gets an OpenAI error object and the right status, and the server lives on."""

import httpx
import pytest

pytestmark = pytest.mark.cluster

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "turn my lamp to 40"}]
JSON = {"content-type": "application/json"}


def chat(**changes: object) -> dict[str, object]:
    return {"model": "home", "messages": HELLO, "max_tokens": 16, **changes}


CASES = {
    "unknown model": (CHAT, chat(model="nope"), 404, "nope"),
    "missing model": (CHAT, {"messages": HELLO}, 400, "model"),
    "prompt too long": (COMPLETIONS, {"model": "home", "prompt": "a" * 3000}, 400, "2048"),
    "prompt and output too long": (
        COMPLETIONS,
        {"model": "home", "prompt": [70] * 2048, "max_tokens": 4},
        400,
        "max_tokens",
    ),
    "max_tokens 0": (CHAT, chat(max_tokens=0), 400, "max_tokens"),
    "max_tokens -1": (COMPLETIONS, {"model": "home", "prompt": "x", "max_tokens": -1}, 400, "max_tokens"),
    "temperature is text": (CHAT, chat(temperature="hot"), 400, "temperature"),
    "messages is text": (CHAT, chat(messages="hello"), 400, "messages"),
    "unknown role": (CHAT, chat(messages=[{"role": "wizard", "content": "x"}]), 400, "wizard"),
    "empty messages": (CHAT, chat(messages=[]), 400, "messages"),
    "empty prompt": (COMPLETIONS, {"model": "home", "prompt": ""}, 400, "prompt"),
    "token id beyond the vocabulary": (COMPLETIONS, {"model": "home", "prompt": [99999]}, 400, "99999"),
    "prompt logprobs": (COMPLETIONS, {"model": "home", "prompt": "xyz", "prompt_logprobs": 1}, 400, "prompt"),
    "a ticket from outside": (
        COMPLETIONS,
        {"model": "home", "prompt": "xyz", "kv_transfer_params": {"heliostat": {"ticket_id": "00"}}},
        400,
        "kv_transfer_params",
    ),
}


def assert_error(response: httpx.Response, status: int, says: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == status
    assert error["type"]
    assert says in error["message"]


@pytest.fixture
def http(cluster):
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        yield client
        answer = client.post(CHAT, json=chat(temperature=0))
        assert answer.json()["choices"][0]["message"]["content"] == "set(lamp,40)", "the server lives on"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_refused(http: httpx.Client, case: str, stream: bool) -> None:
    path, body, status, says = CASES[case]
    assert_error(http.post(path, json={**body, "stream": stream}), status, says)


def test_invalid_json(http: httpx.Client) -> None:
    assert_error(http.post(CHAT, content=b'{"model":', headers=JSON), 400, "JSON")


def test_invalid_utf8(http: httpx.Client) -> None:
    body = b'{"model": "home", "prompt": "\xff\xfe"}'
    assert_error(http.post(COMPLETIONS, content=body, headers=JSON), 400, "body")


def test_wrong_content_type(http: httpx.Client) -> None:
    assert_error(http.post(CHAT, content=b"hello", headers={"content-type": "text/plain"}), 400, "json")


def test_body_of_20_mb(http: httpx.Client) -> None:
    body = b'{"model": "home", "prompt": "' + b"a" * 20_000_000 + b'"}'
    assert_error(http.post(COMPLETIONS, content=body, headers=JSON), 413, "larger than")


def test_body_of_20_mb_of_undeclared_length(http: httpx.Client) -> None:
    def pieces():
        yield b'{"model": "home", "prompt": "'
        for _ in range(20):
            yield b"a" * 1_000_000
        yield b'"}'

    assert_error(http.post(COMPLETIONS, content=pieces(), headers=JSON), 413, "larger than")


def test_unknown_path(http: httpx.Client) -> None:
    assert_error(http.get("/v2/nothing"), 404, "Not Found")


def test_wrong_method(http: httpx.Client) -> None:
    assert_error(http.get(CHAT), 405, "Method Not Allowed")


def test_a_prompt_longer_than_its_pool_takes(http: httpx.Client) -> None:
    """`cramped` takes 1024 tokens although the family takes 2048; only the replica knows."""
    response = http.post(COMPLETIONS, json={"model": "cramped", "prompt": [70] * 1500, "max_tokens": 4})
    assert_error(response, 400, "1024")
    assert "Traceback" not in response.text

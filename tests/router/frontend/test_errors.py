"""What an error says of itself: its `type` is its status's, whichever part of the router found it."""

import json

import httpx
import openai
import pytest
from chat_bodies import CHAT, COMPLETIONS, chat
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import (
    GenerationError,
    RetryableRequestError,
    VLLMNotFoundError,
    VLLMUnprocessableEntityError,
    VLLMValidationError,
)

import heliostat.errors
from heliostat.errors import OverloadedError, PoolUnavailableError, RequestError
from router.frontend.error_response import TYPES

REQUESTS = {
    "an unknown parameter": (("POST", CHAT, chat(temprature=1)), 400),
    "a wrong type": (("POST", CHAT, chat(temperature="hot")), 400),
    "a wrong value": (("POST", CHAT, chat(top_p=3)), 400),
    "a value before its type": (("POST", CHAT, chat(messages=None)), 400),
    "a prompt that is too long": (("POST", COMPLETIONS, {"model": "home", "prompt": [70] * 5000}), 400),
    "an n that can never fit": (("POST", CHAT, chat(n=1001)), 400),
    "no such model": (("POST", CHAT, chat(model="nope")), 404),
    "no such path": (("POST", "/v1/embeddings", {}), 404),
    "no such method": (("GET", CHAT, None), 405),
    "a body that is too large": (("POST", CHAT, chat(user="x" * 9_000_000)), 413),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", REQUESTS)
async def test_a_refusal_is_of_its_statuss_type(surface, case: str, stream: bool) -> None:
    (method, path, body), status = REQUESTS[case]
    answer = await surface.http.request(method, path, json=body and {**body, "stream": stream})
    assert_error(answer, status)


def assert_error(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (TYPES[status], status)


FAILURES = {429: OverloadedError("busy", 2.5), 500: RequestError("broken"), 503: PoolUnavailableError("gone")}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", FAILURES)
async def test_so_is_a_failure_before_the_first_token(surface, status: int, stream: bool) -> None:
    surface.pools.failure = (0, FAILURES[status])
    answer = await surface.http.post(CHAT, json=chat(stream=stream))
    assert_error(answer, status)
    assert answer.headers.get("retry-after") == ("3" if status == 429 else None)


@pytest.mark.parametrize("status", [500, 503])
async def test_so_is_one_in_mid_stream(surface, status: int) -> None:
    surface.pools.failure = (1, FAILURES[status])
    answer = await surface.http.post(CHAT, json=chat(stream=True))
    *_, event, done = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert (answer.status_code, done) == (200, "[DONE]")
    error = json.loads(event)["error"]
    assert (error["type"], error["code"]) == (TYPES[status], status)
    assert FAILURES[status].message in error["message"]


def test_every_error_of_ours_has_a_type() -> None:
    found = [each for each in vars(heliostat.errors).values() if isinstance(each, type)]
    statuses = {each.status for each in found if issubclass(each, RequestError)}
    assert len(statuses) > 5 and statuses <= TYPES.keys()


@pytest.mark.parametrize(
    "error",
    [
        VLLMValidationError("x"),
        VLLMNotFoundError("x"),
        VLLMUnprocessableEntityError("x"),
        GenerationError("x"),
        RetryableRequestError("x"),
        NotImplementedError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_vllms_own_handlers_name_types_as_we_do(error: Exception) -> None:
    """They answer for what is raised beside the endpoints."""
    told = create_error_response(error).error
    assert told.type == TYPES[told.code]


def test_types_are_the_clients_classes_where_it_has_one() -> None:
    for status in (400, 401, 403, 404, 409, 422, 429, 500):
        assert hasattr(openai, TYPES[status])


async def test_the_client_gets_all_that_the_body_says(surface) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await surface.openai.chat.completions.create(**chat(top_p=3))
    error = refused.value
    assert (error.type, error.param) == ("BadRequestError", "top_p")
    assert error.code == "400", "which it makes of the number"

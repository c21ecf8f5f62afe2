"""`/heliostat/models` over HTTP: statuses, and errors that name the key that is wrong."""

from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import JsonValue

from heliostat.errors import (
    HeliostatError,
    InvalidRequestError,
    ModelChangesOffError,
    ModelExistsError,
    UnknownModelError,
)
from router.frontend.error_response import request_error_response
from router.frontend.models import (
    PATH,
    ModelListing,
    NewModel,
    add_model_routes,
    parse_new_model,
)

FINE: dict[str, JsonValue] = {"name": "late", "prefill": "home", "decode": "base"}


@dataclass
class Desk:
    """Serves what it was told to, and knows of no pools."""

    models: dict[str, NewModel] = field(default_factory=dict)
    closed: bool = False

    def listings(self) -> tuple[ModelListing, ...]:
        return tuple(self._listing(new) for new in self.models.values())

    async def add(self, new: NewModel) -> ModelListing:
        if self.closed:
            raise ModelChangesOffError("say `model_changes: true`")
        if new.name in self.models:
            raise ModelExistsError(f"the model `{new.name}` exists already")
        self.models[new.name] = new
        return self._listing(new)

    async def remove(self, name: str) -> ModelListing:
        if name not in self.models:
            raise UnknownModelError(f"The model `{name}` does not exist")
        return self._listing(self.models.pop(name))

    @staticmethod
    def _listing(new: NewModel) -> ModelListing:
        facts = new.model_dump(include={"name", "prefill", "decode", "prefill_adapter", "decode_adapter"})
        return ModelListing(**facts, origin="added")


async def answer_error(request: Request, error: Exception) -> Response:
    return request_error_response(error)


def client(desk: Desk) -> httpx.AsyncClient:
    app = FastAPI(exception_handlers={HeliostatError: answer_error})
    add_model_routes(app, desk)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_model_is_added_listed_and_removed() -> None:
    http = client(Desk())
    added = await http.post(PATH, json={**FINE, "decode_adapter": "org/math-lora"})
    assert added.status_code == httpx.codes.CREATED
    assert added.json() == {
        "name": "late",
        "prefill": "home",
        "decode": "base",
        "prefill_adapter": None,
        "decode_adapter": "org/math-lora",
        "origin": "added",
    }
    assert (await http.get(PATH)).json() == {"models": [added.json()]}
    removed = await http.delete(f"{PATH}/late")
    assert (removed.status_code, removed.json()) == (httpx.codes.OK, added.json())
    assert (await http.get(PATH)).json() == {"models": []}


@pytest.mark.parametrize(
    ("closed", "times", "status", "kind"),
    [(True, 1, 403, "PermissionDeniedError"), (False, 2, 409, "ConflictError")],
)
async def test_a_change_that_may_not_be_is_openais_error(
    closed: bool, times: int, status: int, kind: str
) -> None:
    http = client(Desk(closed=closed))
    for _ in range(times):
        answer = await http.post(PATH, json=FINE)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == (kind, status) and error["message"]


async def test_a_name_that_is_not_served_cannot_be_removed() -> None:
    answer = await client(Desk()).delete(f"{PATH}/nobody")
    assert answer.status_code == httpx.codes.NOT_FOUND
    assert answer.json()["error"]["type"] == "NotFoundError"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"name": "Late Model", "prefill": "p", "decode": "d"}', ("`name`", '"Late Model"', "lower-case")),
        ('{"name": "late", "prefill": "p"}', ("`decode` is missing",)),
        ('{"name": "late", "prefil": "p", "decode": "d"}', ("`prefil`", "did you mean `prefill`?")),
        ('{"name": "x", "prefill": "p", "decode": "d", "adapter": "y"}', ("`adapter`", "prefill_adapter")),
        ('{"name": "x", "prefill": "p", "decode": "d", "limits": {"wait": 1}}', ("`limits.wait`", "weight")),
        ('{"name": "x", "prefill": "p", "decode": "d", "limits": {"weight": 0}}', ("`limits.weight`", "0")),
        ('{"name": 7, "prefill": "p", "decode": "d"}', ("`name`", "string", "7")),
        ("[]", ("not a JSON object",)),
        ("{", ("not a JSON object",)),
        ("", ("not a JSON object",)),
    ],
)
def test_a_wrong_body_is_named_by_its_first_wrong_key(body: str, said: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_new_model(body.encode())
    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_limits_are_those_of_the_spec() -> None:
    body = '{"name": "x", "prefill": "p", "decode": "d", "limits": {"weight": 2, "concurrency": 3}}'
    assert parse_new_model(body.encode()).limits.concurrency == 3

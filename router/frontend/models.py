"""`/heliostat/models`: what a cluster serves, and how models come and go while it runs.

Whoever may reach the router may call these, so they change nothing unless the spec says
`router.model_changes: true`.
"""

from http import HTTPStatus
from typing import Literal, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from heliostat.errors import InvalidRequestError
from heliostat.findings import did_you_mean, show
from heliostat.spec import Limits, Name

PATH = "/heliostat/models"
NAME_RULE = (
    "use lower-case letters, digits, `.`, `_` and `-`, a letter or digit at both ends, at most 63 characters"
)


class NewModel(BaseModel):
    """The body of a POST. An adapter is one that the pool lists, a directory on the hosts, or a hub name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: Name
    prefill: Name
    decode: Name
    prefill_adapter: str | None = None
    decode_adapter: str | None = None
    untrained_pair: bool = False
    limits: Limits = Limits()


class ModelListing(BaseModel):
    """One served model. `added` ones came at run time and go with the cluster."""

    model_config = ConfigDict(frozen=True)

    name: str
    prefill: str
    decode: str
    prefill_adapter: str | None
    decode_adapter: str | None
    origin: Literal["spec", "added"]


class ModelListings(BaseModel):
    """What a GET answers."""

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelListing, ...]


class ModelDesk(Protocol):
    """Where models come and go. `deployments.catalog` does it for the whole cluster."""

    def listings(self) -> tuple[ModelListing, ...]:
        """Every model that this router serves, those of the spec first."""

    async def add(self, new: NewModel) -> ModelListing:
        """Check, load adapters, and serve; all of it or nothing. Afterwards every router serves the model.

        Raises ModelChangesOffError, ModelExistsError, InvalidRequestError, PoolUnavailableError.
        """

    async def remove(self, name: str) -> ModelListing:
        """Serve it no longer; running requests finish. Raises ModelChangesOffError, UnknownModelError."""


def add_model_routes(app: FastAPI, desk: ModelDesk) -> None:
    """The three endpoints."""

    async def listed() -> Response:
        return JSONResponse(ModelListings(models=desk.listings()).model_dump(mode="json"))

    async def add(raw_request: Request) -> Response:
        added = await desk.add(parse_new_model(await raw_request.body()))
        return JSONResponse(added.model_dump(mode="json"), HTTPStatus.CREATED)

    async def remove(name: str) -> Response:
        return JSONResponse((await desk.remove(name)).model_dump(mode="json"))

    app.get(PATH, response_model=None)(listed)
    app.post(PATH, response_model=None)(add)
    app.delete(f"{PATH}/{{name}}", response_model=None)(remove)


def parse_new_model(body: bytes) -> NewModel:
    """The body as a model. Raises InvalidRequestError with the first key that is wrong."""
    try:
        return NewModel.model_validate_json(body)
    except ValidationError as error:
        # A mistyped key is missing, too; its wrong spelling says more.
        details = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    key, kind = ".".join(map(str, details["loc"])), details["type"]
    if kind == "missing":
        raise InvalidRequestError(f"`{key}` is missing; give `name`, and the pools `prefill` and `decode`")
    if kind == "extra_forbidden":
        known = Limits.model_fields if key.startswith("limits.") else NewModel.model_fields
        remedy = did_you_mean(key.removeprefix("limits."), known, "known keys")
        raise InvalidRequestError(f"`{key}` is not a key of a model; {remedy}")
    if kind == "string_pattern_mismatch":
        raise InvalidRequestError(f"`{key}` is {show(details['input'])}, which is not a name; {NAME_RULE}")
    if not key:
        raise InvalidRequestError(
            f"the body is not a JSON object with a model: {details['msg']}; for example "
            '{"name": "math", "prefill": "base", "decode": "base", "decode_adapter": "/adapters/math"}'
        )
    raise InvalidRequestError(f"`{key}`: {details['msg']}; found {show(details['input'])}")

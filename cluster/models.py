"""`heliostat models`: what a running cluster serves, and models that come and go without a restart."""

import argparse
from pathlib import Path
from urllib.parse import quote

import httpx
import yaml
from pydantic import BaseModel, ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from cluster.api_key import headers
from heliostat.client.settings import root_of
from heliostat.errors import HeliostatError
from router.frontend.models import PATH, ModelListing, ModelListings

READ_S = 10.0
CHANGE_S = 300.0
"""A change waits for every replica of two pools, which may load an adapter from slow storage."""


class _ApiError(BaseModel):
    message: str


class _ApiErrorBody(BaseModel):
    """OpenAI's error object."""

    error: _ApiError


def models_command(args: argparse.Namespace) -> int:
    """One of the three; exit status 0. Raises HeliostatError with what the cluster says, if it answers."""
    return {"list": _list, "add": _add, "remove": _remove}[args.what](args)


def _list(args: argparse.Namespace) -> int:
    answer = _ask(args.url, "GET", PATH)
    try:
        listings = ModelListings.model_validate_json(answer.content)
    except ValidationError as error:
        raise _not_ours(args.url) from error
    if args.json:
        print(listings.model_dump_json(indent=2))
    else:
        Console().print(_table(listings))
    return 0


def _add(args: argparse.Namespace) -> int:
    body = {
        "name": args.name,
        "prefill": args.prefill,
        "decode": args.decode,
        "prefill_adapter": _absolute(args.prefill_adapter),
        "decode_adapter": _absolute(args.decode_adapter),
        "untrained_pair": args.untrained_pair,
    }
    listing = _listing(args.url, _ask(args.url, "POST", PATH, body))
    if args.json:
        print(listing.model_dump_json(indent=2))
        return 0
    print(
        f"{listing.name} is served by every router, from {_side(listing.prefill, listing.prefill_adapter)} "
        f"and {_side(listing.decode, listing.decode_adapter)}.\n"
        "It stays until the cluster stops. To keep it, add to the spec:\n"
    )
    print(spec_lines(listing, untrained_pair=args.untrained_pair))
    return 0


def _remove(args: argparse.Namespace) -> int:
    listing = _listing(args.url, _ask(args.url, "DELETE", f"{PATH}/{quote(args.name, safe='')}"))
    if args.json:
        print(listing.model_dump_json(indent=2))
        return 0
    print(
        f"{listing.name} is served no longer; its running requests finish, "
        "those that wait for a place get a 404."
    )
    if listing.origin == "spec":
        print("It comes back when the cluster starts again: take it out of the spec, too.")
    return 0


def spec_lines(listing: ModelListing, *, untrained_pair: bool = False) -> str:
    """What makes the model a part of the spec: YAML, to be merged into the file."""
    model: dict[str, str | bool] = {"prefill": listing.prefill, "decode": listing.decode}
    spec: dict[str, dict[str, dict[str, object]]] = {}
    for role, pool, adapter in (
        ("prefill", listing.prefill, listing.prefill_adapter),
        ("decode", listing.decode, listing.decode_adapter),
    ):
        if adapter is None:
            continue
        listed = "/" not in adapter  # a name of the pool's, which the spec has already
        model[f"{role}_adapter"] = adapter if listed else listing.name
        if not listed:
            spec[role] = {pool: {"adapters": {listing.name: adapter}}}
    if untrained_pair:
        model["untrained_pair"] = True
    spec["models"] = {listing.name: dict(model)}
    lines: str = yaml.safe_dump(
        spec, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000
    )
    return lines.rstrip()


def _absolute(adapter: str | None) -> str | None:
    """A directory of this host by its whole path; what is none here is a name."""
    if adapter is None:
        return None
    directory = Path(adapter).expanduser()
    return str(directory.resolve()) if directory.is_dir() else adapter


def _ask(
    url: str, method: str, path: str, body: dict[str, str | bool | None] | None = None
) -> httpx.Response:
    """The answer of a change that went well, or of a list. `url` may end in the /v1 of
    OpenAI's clients. Raises HeliostatError."""
    timeout_s = READ_S if method == "GET" else CHANGE_S
    try:
        answer = httpx.request(
            method, f"{root_of(url)}{path}", json=body, headers=headers(), timeout=timeout_s
        )
    except httpx.HTTPError as error:
        raise HeliostatError(f"no answer from {url}: {error}; is `heliostat serve` running there?") from error
    if answer.is_success:
        return answer
    try:
        message = _ApiErrorBody.model_validate_json(answer.content).error.message
    except ValidationError as error:
        raise _not_ours(url) from error
    raise HeliostatError(message)


def _listing(url: str, answer: httpx.Response) -> ModelListing:
    try:
        return ModelListing.model_validate_json(answer.content)
    except ValidationError as error:
        raise _not_ours(url) from error


def _not_ours(url: str) -> HeliostatError:
    return HeliostatError(f"{url} answers, but it is not a Heliostat router that knows {PATH}")


def _side(pool: str, adapter: str | None) -> str:
    return f"{pool} with {adapter}" if adapter else pool


def _table(listings: ModelListings) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("model", "prefill", "adapter", "decode", "adapter", "origin"):
        table.add_column(heading, overflow="fold")
    for each in listings.models:
        table.add_row(
            each.name,
            each.prefill,
            each.prefill_adapter or "",
            each.decode,
            each.decode_adapter or "",
            each.origin,
        )
    return table

"""What a server serves: asked before anything else, so that what is wrong is said once and in time."""

from collections.abc import Sequence

from cluster.api_key import VARIABLE
from heliostat.client import AsyncClient
from heliostat.errors import (
    HeliostatError,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnknownModelError,
    UnreachableError,
)
from heliostat.findings import did_you_mean


async def served_models(client: AsyncClient, url: str) -> tuple[str, ...]:
    """The models' names, in the server's order; none where it does not list them.

    Raises HeliostatError when nobody answers there, or only to those who have a key.
    """
    try:
        return tuple(card.id for card in await client.models())
    except (UnexpectedAnswerError, UnknownModelError):
        return ()
    except UnauthorizedError as error:
        raise HeliostatError(f"{url} wants an API key; put one of its keys in {VARIABLE}") from error
    except UnreachableError as error:
        raise HeliostatError(f"no answer from {error}; is `heliostat serve` running there?") from error


def check_models(asked: Sequence[str], served: Sequence[str], url: str) -> tuple[str, ...]:
    """Those to ask: without any asked for, the only one that is served.

    A server that lists none is believed to serve all. Raises HeliostatError.
    """
    if not asked:
        if len(served) == 1:
            return tuple(served)
        listed = f"; {url} serves {', '.join(served)}" if served else ""
        raise HeliostatError(f"say which model with --model{listed}")
    for name in asked:
        if served and name not in served:
            raise HeliostatError(
                f"{url} does not serve `{name}`; {did_you_mean(name, tuple(served), 'models')}"
            )
    return tuple(asked)

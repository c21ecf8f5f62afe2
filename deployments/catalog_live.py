"""The models of one router replica, in all the places that have to know them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from heliostat.spec import Model
from router.catalog import ServedModel
from router.route import Route

if TYPE_CHECKING:  # whoever only builds the application must not wait for vLLM's import
    from router.frontend.openai import ModelServing


class Follower(Protocol):
    """Keeps something for each model: `router.admission.Admission`, `router.accounts.Accounts`."""

    def add(self, name: str, model: Model) -> None:
        """One more."""

    def remove(self, name: str) -> None:
        """One less; what it still runs must not fail by that."""


class LiveModels:
    """Puts a model into every place at once, and takes it away again, between two steps of the event loop.

    `served`, `routes` and `serving` are changed in place, so whoever was given one sees every change.
    """

    def __init__(
        self,
        served: dict[str, ServedModel],
        routes: dict[str, Route],
        serving: "dict[str, ModelServing]",
        followers: tuple[Follower, ...],
        make_route: Callable[[ServedModel], Route],
        make_serving: "Callable[[str, ServedModel], ModelServing]",
    ) -> None:
        self._served, self._routes, self._serving = served, routes, serving
        self._followers = followers
        self._make_route, self._make_serving = make_route, make_serving

    @property
    def served(self) -> dict[str, ServedModel]:
        """By name."""
        return self._served

    def put(self, name: str, served: ServedModel) -> None:
        """Serve it, in the place of another of that name if there is one."""
        # What may fail comes first: a model is there wholly or not at all.
        route, serving = self._make_route(served), self._make_serving(name, served)
        if name in self._served:
            self.take(name)
        for follower in self._followers:
            follower.add(name, served.model)
        self._routes[name] = route
        self._served[name] = served
        self._serving[name] = serving

    def take(self, name: str) -> None:
        """Serve it no longer. Requests that wait for a slot get a 404, those that run finish."""
        del self._serving[name], self._served[name], self._routes[name]
        for follower in self._followers:
            follower.remove(name)


def root(served: ServedModel) -> str:
    """What /v1/models shows as the root of a model: `home + base:spell`."""
    parts = (
        served.model.prefill + (f":{served.prefill_adapter.source}" if served.prefill_adapter else ""),
        served.model.decode + (f":{served.decode_adapter.source}" if served.decode_adapter else ""),
    )
    return " + ".join(parts)

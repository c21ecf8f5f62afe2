"""Somebody else's application on the same Serve."""

from ray import serve
from ray.serve import Application


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Other:
    def __call__(self) -> str:
        return "not ours"


def build(args: dict[str, str]) -> Application:
    return Other.bind()

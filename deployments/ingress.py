"""The router as a Serve deployment: the composition of frontend, pipeline and pools in one replica."""

from collections.abc import Mapping

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments import board
from deployments.cluster_view import ServeClusterView
from deployments.pools import ServeDecodePool, ServePrefillPool
from deployments.weights import local_weights
from heliostat.spec import Spec
from heliostat.wire import Role
from router.pipeline import Pipeline, Route


@serve.ingress()
class Router:
    """One router replica: HTTP in, token streams out, no engine inside."""

    def __init__(
        self, spec: Spec, prefill: Mapping[str, DeploymentHandle], decode: Mapping[str, DeploymentHandle]
    ) -> None:
        # Imported here, because whoever only builds the application must not wait for vLLM's import.
        from router.frontend.app import build_app
        from router.frontend.openai import build_serving

        handles = {(Role.PREFILL, name): handle for name, handle in prefill.items()}
        handles |= {(Role.DECODE, name): handle for name, handle in decode.items()}
        cluster = ServeClusterView(spec, handles, board.BOARD)
        prefill_pools = {
            name: ServePrefillPool(cluster.pool(Role.PREFILL, name), handle, board.BOARD)
            for name, handle in prefill.items()
        }
        decode_pools = {
            name: ServeDecodePool(cluster.pool(Role.DECODE, name), handle, board.BOARD)
            for name, handle in decode.items()
        }
        pipeline = Pipeline(
            {
                model: Route(
                    prefill_pools[route.prefill],
                    decode_pools[route.decode],
                    whole_prompt=spec.transfer.connector is not None,
                )
                for model, route in spec.models.items()
            },
            early=spec.transfer.decode_choice == "early",
        )
        cluster.start()
        roots = {model: f"{route.prefill} + {route.decode}" for model, route in spec.models.items()}
        serving = build_serving(
            roots, local_weights(spec.family.base), spec.family, pipeline, cluster.unavailable
        )
        self._app = build_app(serving, cluster)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Serve asks for the application after the constructor (`serve.ingress` without an app)."""
        return self._app

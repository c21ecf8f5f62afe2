"""`ray.serve.llm` over the stand-in engine, alone on this machine: a peer of the router benchmark.

    python -m benchmarks.router_ray --port 8000 --model base --weights examples/quickstart/weights/base

Run it in the environment that `benchmarks.router_peers` makes for it, from the repository's root. Ray 2.60's
OpenAI application, ingress, replica and `VLLMEngine` are used as they are; only `AsyncLLM` is replaced by our
stand-in, through the engine class that Ray takes from its environment variable `RAYLLM_VLLM_ENGINE_CLS`.
`--direct` is Ray's direct streaming: HAProxy hands a request to the replica's own vLLM application.
"""

import argparse
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.config import HTTPOptions
from ray.serve.llm import LLMConfig, build_openai_app

from benchmarks.report import REPOSITORY
from benchmarks.router_standin import StandInLLM

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs
    from vllm.config import VllmConfig

MODULE = "benchmarks.router_ray"
LOGICAL_CPUS = 16
SETTINGS = {
    "RAYLLM_VLLM_ENGINE_CLS": f"{MODULE}.StandInEngine",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "PYTHONPATH": str(REPOSITORY),
}
"""What Ray reads from the environment when it is imported, here and in every process that it starts."""


class StandInEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's vLLM engine without the engine."""

    def _start_async_llm_engine(
        self, vllm_engine_args: "AsyncEngineArgs", vllm_engine_config: "VllmConfig", placement_group: object
    ) -> StandInLLM:
        return StandInLLM(vllm_engine_config, log_stats=not vllm_engine_args.disable_log_stats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="the name that clients ask for")
    parser.add_argument("--weights", type=Path, required=True, help="a checkpoint; its weights are not read")
    parser.add_argument("--direct", action="store_true", help="direct streaming behind HAProxy")
    parser.add_argument("--no-stats", action="store_true", help="as `vllm serve --disable-log-stats`")
    parser.add_argument("--batch-ms", type=float, help="Ray's interval for merging tokens (its default: 50)")
    options = parser.parse_args()
    # Ray has read its environment when the line above runs, so this process begins again with ours.
    environment = os.environ | SETTINGS
    environment["RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"] = "1" if options.direct else "0"
    if environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", MODULE, *sys.argv[1:]], environment)
    with suppress(KeyboardInterrupt):
        run(options)


def run(options: argparse.Namespace) -> None:
    """Serve until KeyboardInterrupt; SIGTERM raises it too."""
    # A cluster that happens to run here is not ours. CPUs are counted, not bound: every actor asks for one,
    # and the machine may have fewer.
    ray.init(address="local", num_cpus=LOGICAL_CPUS, include_dashboard=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=options.port))
        serve.run(build_openai_app({"llm_configs": [_config(options)]}), name="peer")
        while True:
            signal.pause()
    finally:
        ray.shutdown()  # the cluster is ours alone; `serve.shutdown` would wait 30 s for HAProxy first


def _config(options: argparse.Namespace) -> LLMConfig:
    batching = {} if options.batch_ms is None else {"stream_batching_interval_ms": options.batch_ms}
    return LLMConfig(
        model_loading_config={"model_id": options.model, "model_source": str(options.weights.resolve())},
        engine_kwargs={"dtype": "float32", "disable_log_stats": options.no_stats},
        accelerator_config={"kind": "cpu"},
        deployment_config={"num_replicas": 1},
        experimental_configs=batching,
    )


if __name__ == "__main__":
    main()

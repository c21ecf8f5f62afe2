"""The peer: vLLM's own API server with all adapters in one engine, as a user would start it."""

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.many_models_family import MAX_MODEL_LEN, RANK, Family
from benchmarks.many_models_specs import BLOCK_SIZE, KV_CACHE_GIB, MAX_BATCHED_TOKENS, MAX_RUNNING, SLOTS
from benchmarks.plain_vllm import Plain, running_vllm
from heliostat.spec import Lora, Pool

THREADS = 2
"""As many as our two engines have together."""


def flags(family: Family) -> list[str]:
    """Of its command line; every adapter is loaded at the start and stays in memory."""
    names = family.adapters
    line = ["--model", str(family.base), "--dtype", "float32", "--enforce-eager"]
    line += ["--max-model-len", str(MAX_MODEL_LEN), "--block-size", str(BLOCK_SIZE)]
    line += ["--max-num-seqs", str(MAX_RUNNING), "--max-num-batched-tokens", str(MAX_BATCHED_TOKENS)]
    line += ["--kv-cache-memory-bytes", str(int(2 * KV_CACHE_GIB * 2**30))]
    line += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    line += ["--enable-lora", "--max-loras", str(SLOTS), "--max-lora-rank", str(RANK)]
    line += ["--max-cpu-loras", str(max(SLOTS, len(names)))]
    return [*line, "--lora-modules", *(f"{name}={path}" for name, path in names.items())]


def running_plain(family: Family, log: Path, *, threads: int = THREADS) -> AbstractContextManager[Plain]:
    """Serve the family's models, as `running_vllm` does."""
    pool = Pool(weights=str(family.base), gpus=0, cpus=threads, lora=Lora())
    return running_vllm(flags(family), pool, log)

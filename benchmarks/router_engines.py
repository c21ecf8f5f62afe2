"""Real vLLM engines through the whole stack, beside `AsyncLLM` alone. `python -m benchmarks.router_engines`

    alone    one AsyncLLM, its tokens counted in its own process: no HTTP, no text
    stack    HAProxy, router, one prefill and one decode replica, load generator; every token as an SSE event

Both get the same lengths in closed loops of 1, 8 and 32 streams, one thread for the arithmetic, rounds in
turn. Two models of one geometry: the quickstart's tiny one, whose step costs a millisecond or two, so that
the stack's own processes take a good part of two cores; and a larger one with random weights, whose steps
are as long as those of a real model.

What this cannot show on two cores: the stack's processes, the second engine among them, share them with the
engine that is measured. On a GPU machine they have cores of their own.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import yaml
from rich.console import Console

from benchmarks.report import REPOSITORY, RESULTS, Metric, make_report, render, write_json
from benchmarks.router_alone import AloneResult
from benchmarks.router_load import Target, load_from_outside
from benchmarks.server import running_cluster
from deployments.environment import replica_environment
from heliostat.errors import HeliostatError
from heliostat.spec import Pool

TINY = REPOSITORY / "examples" / "quickstart" / "weights" / "base"
STREAMS = (1, 8, 32)
REQUESTS = {"tiny": (6, 4, 3), "large": (2, 2, 2)}
"""Of each stream: some seconds for every load."""

PROMPT_TOKENS = 32
MAX_TOKENS = 128
GOAL = 0.95


def main() -> None:
    """Measure, print a table, write the result. Raises HeliostatError."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "router_engines.json")
    args = parser.parse_args()
    metrics: dict[str, Metric] = {}
    with tempfile.TemporaryDirectory() as folder:
        large = make_large(Path(folder) / "large")
        for name, weights in (("tiny", TINY), ("large", large)):
            metrics |= _compare(name, weights, args.rounds, Path(folder))
    report = make_report(args.rounds, metrics)
    write_json(report, args.json)
    render(report, Console(width=120), title="Real engines", value="stack", peer="AsyncLLM alone")


def make_large(folder: Path) -> Path:
    """A checkpoint of 22 million random parameters, with the tiny one's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = AutoConfig.from_pretrained(TINY)
    config.update({"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8})
    config.update({"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def _compare(name: str, weights: Path, rounds: int, folder: Path) -> dict[str, Metric]:
    """Both sides in turn; each start of a side measures every load once per round."""
    loads = dict(zip(STREAMS, REQUESTS[name], strict=True))
    alone: dict[int, list[AloneResult]] = defaultdict(list)
    stack: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for result in _alone(weights, loads):
            alone[result.streams].append(result)
            print(f"{name}, alone: {result}", flush=True)
        with running_cluster(_spec(weights, folder / f"{name}.yaml")) as url:
            target = Target(url, "base", prompt_tokens=PROMPT_TOKENS, max_tokens=MAX_TOKENS)
            load_from_outside(target, streams=8, requests=1, seed="warm")
            for streams, requests in loads.items():
                got = load_from_outside(target, streams=streams, requests=requests)
                if got.failures:
                    raise HeliostatError(f"requests failed: {got.failures}")
                stack[streams].append((got.tok_per_s, got.tpot_p50_ms or 0.0))
                print(f"{name}, stack: {got}", flush=True)
    metrics = {}
    for streams in STREAMS:
        by_alone = median(result.tok_per_s for result in alone[streams])
        ours = median(rate for rate, _ in stack[streams])
        metrics[f"{name}_tokens_{streams}_streams"] = Metric(
            value=ours, unit="tok/s", better="higher", peer=by_alone
        )
        metrics[f"{name}_tpot_p50_{streams}_streams"] = Metric(
            value=median(tpot for _, tpot in stack[streams]),
            unit="ms",
            better="lower",
            peer=median(result.tpot_p50_ms for result in alone[streams]),
        )
        metrics[f"{name}_share_{streams}_streams"] = Metric(
            value=ours / by_alone, unit="of alone", goal=GOAL if streams == 32 else None, better="higher"
        )
    return metrics


def _alone(weights: Path, loads: Mapping[int, int]) -> list[AloneResult]:
    command = [sys.executable, "-m", "benchmarks.router_alone", "--weights", str(weights)]
    command += ["--loads", *(f"{streams}x{requests}" for streams, requests in loads.items())]
    command += ["--prompt-tokens", str(PROMPT_TOKENS), "--max-tokens", str(MAX_TOKENS)]
    environment = {**os.environ, **replica_environment(Pool(weights=str(weights), gpus=0))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise HeliostatError(f"AsyncLLM alone failed: {done.stderr.strip()[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return [AloneResult.model_validate_json(line) for line in lines]


def _spec(weights: Path, path: Path) -> Path:
    pool = {"weights": str(weights), "gpus": 0, "cpus": 1.0, "max_running": 64}
    spec = {
        "family": {"base": str(weights), "dtype": "float32", "max_model_len": 2048, "block_size": 32},
        "prefill": {"base": pool},
        "decode": {"base": pool},
        "models": {"base": {"prefill": "base", "decode": "base"}},
    }
    path.write_text(yaml.safe_dump(spec))
    return path


if __name__ == "__main__":
    main()

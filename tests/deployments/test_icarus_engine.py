"""A real ICaRus engine for Qwen3 (norms on queries and keys) against two streams by hand, token for token.

The Llama of the quickstart is tested end to end (tests/e2e/test_modules.py). The engine runs in a process of
its own (`icarus_run.py`): block keys are changed for a whole process.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from deployments.icarus.registration import ICARUS, icarus_args
from finetune.reference import icarus_reference, load_adapted, load_module
from finetune.settings import ICARUS_LINEARS

pytestmark = pytest.mark.modules

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "examples/quickstart/weights/base"
BLOCK, NEW_TOKENS, RANK = 32, 24, 8

Asked = tuple[list[int], str | None, int]
"""Token ids, adapter, number of tokens."""


def make_base(folder: Path) -> Path:
    """A tiny Qwen3 with random weights and the quickstart's tokenizer."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=101,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        initializer_range=0.2,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    return folder


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    """An adapter as PEFT writes it, on all but keys and values, with a B that is not zero."""
    torch.manual_seed(seed)
    adapted = get_peft_model(
        load_module(base), LoraConfig(r=RANK, lora_alpha=16, target_modules=list(ICARUS_LINEARS))
    )
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    adapted.save_pretrained(folder)
    return folder


def test_an_engine_s_tokens_are_those_of_two_streams_by_hand(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    adapters = {name: str(make_adapter(folder, tmp_path / name, seed)) for seed, name in enumerate("ABC")}
    base = load_module(folder)
    readers = {None: base} | {name: load_adapted(folder, path) for name, path in adapters.items()}

    def by_hand(tokens: list[int], name: str | None, count: int) -> list[int]:
        return icarus_reference(base, readers[name], tokens, count, None)

    numbers = random.Random(1)

    def prompt(length: int) -> list[int]:
        return [numbers.randrange(2, 101) for _ in range(length)]

    # Prompts of up to three chunks, and of every adapter beside the base in one batch.
    asked = [(20, None), (33, "A"), (70, "B"), (100, "C"), (5, "A"), (41, None), (150, "C")]
    mixed: list[Asked] = [(prompt(length), name, NEW_TOKENS) for length, name in asked]
    expected = [[by_hand(*each) for each in mixed]]
    steps: list[list[Asked]] = [mixed]
    context = prompt(150)
    for name in ("A", "B", "A", None, "C"):
        steps.append([(context, name, NEW_TOKENS)])
        answer = by_hand(context, name, NEW_TOKENS)
        expected.append([answer])
        context = [*context, *answer, *prompt(17)]

    ran = run_engine(folder, steps, adapters)

    assert [step["tokens"] for step in ran] == expected
    plain = [by_hand(tokens, None, 8) for tokens, name, _ in mixed if name]
    adapted = [answer[:8] for answer, (_, name, _) in zip(expected[0], mixed, strict=True) if name]
    assert plain != adapted, "adapters that change nothing would show nothing"
    # Each turn finds the whole blocks of the one before: of its prompt and of all but its last new token.
    before = [len(step[0][0]) + NEW_TOKENS - 1 for step in steps[1:-1]]
    assert [step["cached"] for step in ran[1:]] == [[0], *([length // BLOCK * BLOCK] for length in before)]
    assert ran[2]["cached"][0] > len(steps[1][0][0]), "no block of generated tokens was shared"


def run_engine(
    base: Path, steps: list[list[Asked]], adapters: dict[str, str]
) -> list[dict[str, list[list[int]]]]:
    engine = {
        "model": str(base),
        **icarus_args("Qwen3ForCausalLM"),
        "dtype": "float32",
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "block_size": BLOCK,
        "kv_cache_memory_bytes": 2**27,
        "enable_lora": True,
        # As many as there are adapters: where vLLM's own ops would give a base row the last one's delta.
        "max_loras": len(adapters),
        "max_lora_rank": RANK,
    }
    environment = {
        **os.environ,
        ICARUS: "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("icarus_run.py"))],
        input=json.dumps({"engine": engine, "adapters": adapters, "steps": steps}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    (line,) = (line for line in ran.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))

"""A real ICaRus engine against the two streams by hand, token for token; one engine start.

The engine runs in a process of its own (`icarus_run.py`): block keys are changed for a whole process.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from deployments.icarus.registration import ICARUS, icarus_args
from finetune.reference import load_module

pytestmark = pytest.mark.transport

ROOT = Path(__file__).parents[2]
BASE = ROOT / "examples/quickstart/weights/base"
BLOCK, NEW_TOKENS = 32, 24
READERS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
RANK, ALPHA = 8, 16

Deltas = dict[str, torch.Tensor]
Asked = tuple[list[int], str | None, int]
"""Token ids, adapter, number of tokens."""


def test_an_engine_s_tokens_are_those_of_two_streams_by_hand(tmp_path: Path) -> None:
    model = load_module(BASE)
    deltas: dict[str | None, Deltas] = {None: {}}
    for seed, name in enumerate("ABC", start=1):
        save_adapter(model, tmp_path / name, seed)
        deltas[name] = load_deltas(tmp_path / name)
    numbers = random.Random(1)

    def prompt(length: int) -> list[int]:
        return [numbers.randrange(2, 101) for _ in range(length)]

    # Prompts of up to three chunks, and of every adapter beside the base in one batch.
    asked = [(20, None), (33, "A"), (70, "B"), (100, "C"), (5, "A"), (41, None), (150, "C")]
    mixed: list[Asked] = [(prompt(length), name, NEW_TOKENS) for length, name in asked]
    expected = [[greedy(model, deltas[name], tokens, count) for tokens, name, count in mixed]]
    steps: list[list[Asked]] = [mixed]
    context = prompt(150)
    for name in ("A", "B", "A", None, "C"):
        steps.append([(context, name, NEW_TOKENS)])
        answer = greedy(model, deltas[name], context, NEW_TOKENS)
        expected.append([answer])
        context = [*context, *answer, *prompt(17)]

    ran = run_engine(steps, {name: str(tmp_path / name) for name in "ABC"})

    assert [step["tokens"] for step in ran] == expected
    plain = [greedy(model, {}, tokens, 8) for tokens, name, _ in mixed if name]
    adapted = [answer[:8] for answer, (_, name, _) in zip(expected[0], mixed, strict=True) if name]
    assert plain != adapted, "adapters that change nothing would show nothing"
    # Each turn finds the whole blocks of the one before: of its prompt and of all but its last new token.
    before = [len(step[0][0]) + NEW_TOKENS - 1 for step in steps[1:-1]]
    assert [step["cached"] for step in ran[1:]] == [[0], *([length // BLOCK * BLOCK] for length in before)]
    assert ran[2]["cached"][0] > len(steps[1][0][0]), "no block of generated tokens was shared"


def run_engine(steps: list[list[Asked]], adapters: dict[str, str]) -> list[dict[str, list[list[int]]]]:
    engine = {
        "model": str(BASE),
        **icarus_args("LlamaForCausalLM"),
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


def save_adapter(model: PreTrainedModel, folder: Path, seed: int, size: float = 0.15) -> None:
    """An adapter as peft writes it, on all but keys and values, with a B that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(READERS):
            key = f"base_model.model.{name}"
            for part, shape in (
                ("lora_A", (RANK, layer.in_features)),
                ("lora_B", (layer.out_features, RANK)),
            ):
                tensors[f"{key}.{part}.weight"] = torch.randn(shape, generator=generator) * size
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    names = '", "'.join(name.rsplit(".", 1)[1] for name in READERS)
    (folder / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": {RANK}, "lora_alpha": {ALPHA}, '
        f'"lora_dropout": 0.0, "bias": "none", "target_modules": ["{names}"], '
        '"base_model_name_or_path": ""}'
    )


def load_deltas(folder: Path) -> Deltas:
    """What the adapter adds to each weight, by the layer's name."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): (ALPHA / RANK)
        * tensors[key.replace("lora_A", "lora_B")]
        @ tensors[key]
        for key in tensors
        if key.endswith("lora_A.weight")
    }


@torch.inference_mode()
def greedy(model: PreTrainedModel, deltas: Deltas, prompt: Sequence[int], count: int) -> list[int]:
    """`count` greedy tokens of the adapted stream."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(_logits(model, deltas, tokens).argmax()))
    return tokens[len(prompt) :]


def _logits(model: PreTrainedModel, deltas: Deltas, tokens: list[int]) -> torch.Tensor:
    """Of the last token, `[vocabulary]`."""
    body = model.model
    base = body.embed_tokens(torch.tensor([tokens]))
    angles = body.rotary_emb(base, torch.arange(len(tokens))[None])
    adapted = base
    for number, layer in enumerate(body.layers):
        prefix = f"model.layers.{number}."
        attention = layer.self_attn
        normed = layer.input_layernorm(base), layer.input_layernorm(adapted)
        key = _heads(attention, attention.k_proj(normed[0]), "k_norm")
        value = _heads(attention, attention.v_proj(normed[0]), "")
        rows = []
        for stream, x, added in ((base, normed[0], {}), (adapted, normed[1], deltas)):
            query = _heads(
                attention, _linear(attention.q_proj, x, added, prefix + "self_attn.q_proj"), "q_norm"
            )
            query, turned = apply_rotary_pos_emb(query, key, *angles)
            read = nn.functional.scaled_dot_product_attention(
                query, turned, value, is_causal=True, enable_gqa=True
            )
            read = read.transpose(1, 2).flatten(2)
            hidden = stream + _linear(attention.o_proj, read, added, prefix + "self_attn.o_proj")
            x = layer.post_attention_layernorm(hidden)
            gate = _linear(layer.mlp.gate_proj, x, added, prefix + "mlp.gate_proj")
            up = _linear(layer.mlp.up_proj, x, added, prefix + "mlp.up_proj")
            x = nn.functional.silu(gate) * up
            rows.append(hidden + _linear(layer.mlp.down_proj, x, added, prefix + "mlp.down_proj"))
        base, adapted = rows
    logits: torch.Tensor = model.lm_head(body.norm(adapted[0, -1]))
    return logits


def _linear(layer: nn.Module, x: torch.Tensor, deltas: Deltas, name: str) -> torch.Tensor:
    result: torch.Tensor = layer(x)
    return result + x @ deltas[name].T if name in deltas else result


def _heads(attention: nn.Module, x: torch.Tensor, norm: str) -> torch.Tensor:
    heads = x.unflatten(-1, (-1, attention.head_dim))
    if norm and hasattr(attention, norm):
        heads = getattr(attention, norm)(heads)
    return heads.transpose(1, 2)

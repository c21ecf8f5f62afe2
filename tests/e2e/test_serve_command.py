"""`heliostat serve` when something goes wrong: one clear line, and nothing left running."""

from pathlib import Path

import httpx
import pytest
from served_cluster import ServeProcess, free_port

from finetune.reference import greedy_reference, load_module

pytestmark = pytest.mark.cluster

WEIGHTS = Path(__file__).parents[2] / "examples" / "quickstart" / "weights"
START_S = 240
PROMPT = list(range(30, 90)) * 2


def one_model(tmp_path: Path, engine_args: str, transfer: str = "") -> str:
    """A spec with one model whose decode engine gets these arguments."""
    spec = tmp_path / "cluster.yaml"
    pool = f"weights: {WEIGHTS}/base, gpus: 0, cpus: 0.25, kv_cache_gib: 0.25"
    spec.write_text(
        f"family: {{base: {WEIGHTS}/base, dtype: float32, max_model_len: 2048, block_size: 32}}\n"
        f"transfer: {{directory: {tmp_path}/kv{transfer}}}\n"
        f"prefill: {{base: {{{pool}}}}}\n"
        f"decode: {{base: {{{pool}, engine_args: {engine_args}}}}}\n"
        "models: {base: {prefill: base, decode: base}}\n"
    )
    return str(spec)


def test_an_engine_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    server = ServeProcess(one_model(tmp_path, "{block_size: 7}"), "--port", "0")
    try:
        assert server.wait(START_S) == 1
    finally:
        server.kill()
    (line,) = [line for line in server.output.splitlines() if line.startswith("heliostat: ")]
    assert "pool decode.base: the engine did not start:" in line
    assert "block" in line
    assert "Traceback" not in server.output


def test_ctrl_c_while_engines_load_leaves_nothing_behind(tmp_path: Path) -> None:
    server = ServeProcess(one_model(tmp_path, "{}"), "--port", "0")
    try:
        server.wait_for("decode.base", START_S)
        assert server.interrupt() == 130, server.output
        assert server.left_behind() == []
    finally:
        server.kill()


def test_another_connector_of_vllm_is_handed_through(tmp_path: Path) -> None:
    """With equal modules on both sides, any connector must give the tokens of one model."""
    connector = (
        f"name: ExampleConnector, config: {{shared_storage_path: {tmp_path}/stored}}, prefill_params: {{}}"
    )
    spec, port = one_model(tmp_path, "{}", f", connector: {{{connector}}}"), str(free_port())
    server = ServeProcess(spec, "--port", port)
    try:
        server.wait_for("ready: http://", START_S)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/completions",
            json={
                "model": "base",
                "prompt": PROMPT,
                "max_tokens": 16,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
            },
            timeout=60,
        )
        assert server.interrupt() == 0, server.output
    finally:
        server.kill()
    module = load_module(str(WEIGHTS / "base"))
    assert answer.json()["choices"][0]["token_ids"] == greedy_reference(module, module, PROMPT, 16, None)
    assert list((tmp_path / "stored").iterdir()), "the connector has stored nothing: it was not used"
    assert "warning: transfer.connector: KV moves by ExampleConnector" in server.output

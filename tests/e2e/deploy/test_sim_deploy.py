"""`heliostat deploy`, `diff` and `down` on a Ray that runs: nothing fails meanwhile, and others stay."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from cluster.serve_api import ServeApi

pytestmark = pytest.mark.sim

WEIGHTS = Path(__file__).parents[3] / "examples" / "quickstart" / "weights"

SPEC = """
family: {{base: {weights}/base, dtype: float32, max_model_len: 2048, block_size: 32}}
transfer: {{lease_s: 10, directory: {folder}/kv}}
prefill:
  home: {{weights: {weights}/{home}, engine: sim, gpus: 0, cpus: 0.1, replicas: 2}}
  mirror: {{weights: {weights}/mirror-prefill, engine: sim, gpus: 0, cpus: 0.1}}
decode:
  base: {{weights: {weights}/base, engine: sim, gpus: 0, cpus: 0.1, replicas: {replicas}, max_running: 64,
          sim: {{step_ms: 5{sim}}}, surge_percent: 100}}
models:
  home: {{prefill: home, decode: base}}
  mirror: {{prefill: mirror, decode: base}}
{more}
"""


def spec_text(
    folder: Path, home: str = "home-prefill", replicas: int = 1, more: str = "", sim: str = ""
) -> str:
    return SPEC.format(weights=WEIGHTS, folder=folder, home=home, replicas=replicas, more=more, sim=sim)


def test_a_first_deploy_stands_beside_other_applications(head, expected) -> None:
    other = {"name": "other", "route_prefix": "/other", "import_path": "other_app:build", "args": {"a": "b"}}
    http = {"host": "127.0.0.1", "port": head.port}
    ServeApi(head.address).put({"http_options": http, "applications": [other]})
    spec = head.write(spec_text(head.folder))
    assert head.run("diff").returncode == 1

    deployed = head.run("deploy")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert f"ready: {head.url}/v1" in deployed.stdout
    prompt = list(range(60, 90))
    answer = httpx.post(
        f"{head.url}/v1/completions",
        json={"model": "home", "prompt": prompt, "max_tokens": 9, "temperature": 0, "return_token_ids": True},
        timeout=60,
    )
    assert answer.json()["choices"][0]["token_ids"] == expected(spec, "home", prompt, 9)
    assert httpx.get(f"{head.url}/other", timeout=30).text == "not ours"

    before = head.replicas()
    again = head.run("deploy")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert head.run("diff").returncode == 0
    assert head.replicas() == before, "a second deploy of the same spec restarts nothing"


async def test_replicas_and_models_change_under_load_and_no_pool_restarts(
    head, http, load_class, expected
) -> None:
    old = head.write(spec_text(head.folder))
    before = await asyncio.to_thread(head.replicas)
    load = load_class(head.url, ("home", "mirror"))
    load.start(http)
    await load.until(20)
    new = head.write(
        spec_text(head.folder, replicas=2, more="  twin: {prefill: home, decode: base, limits: {weight: 2}}")
    )
    deployed = await asyncio.to_thread(head.run, "deploy")
    await load.until(20)
    await load.stop()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    assert load.failures == []
    for _, model, prompt, num_tokens, tokens in load.answers:
        assert tokens == expected(old, model, list(prompt), num_tokens)
    answer = await http.post(
        "/v1/completions", json={"model": "twin", "prompt": [60, 61, 62], "max_tokens": 3}
    )
    assert answer.status_code == 200, answer.text
    assert set(new.models) == {"home", "mirror", "twin"}

    after = await asyncio.to_thread(head.replicas)
    for pool in ("prefill-home", "prefill-mirror", "decode-base"):
        assert before[f"heliostat-{pool}"] <= after[f"heliostat-{pool}"], f"no replica of {pool} restarts"
    assert len(after["heliostat-decode-base"]) == 2
    assert before["heliostat"] != after["heliostat"], "routers take a model more by being made anew"


async def test_other_weights_under_load_are_the_old_ones_or_the_new_ones_and_no_mix(
    head, http, load_class, expected
) -> None:
    more = "  twin: {prefill: home, decode: base, limits: {weight: 2}}"
    old = head.write(spec_text(head.folder, replicas=2, more=more))
    before = await asyncio.to_thread(head.replicas)
    load = load_class(head.url, ("home", "twin", "mirror"))
    load.start(http)
    await load.until(20)
    new = head.write(spec_text(head.folder, home="base", replicas=2, more=more, sim=", per_request_ms: 0.01"))
    changes = await asyncio.to_thread(head.run, "diff")
    assert changes.returncode == 1 and "prefill.home" in changes.stdout
    deployed = await asyncio.to_thread(head.run, "deploy")
    ended_s = time.monotonic()
    await load.until(20)
    await load.stop()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    assert load.failures == []
    versions = set()
    for began_s, model, prompt, num_tokens, tokens in load.answers:
        left, right = (expected(spec, model, list(prompt), num_tokens) for spec in (old, new))
        assert tokens in (left, right), f"{model} is neither the old version nor the new one"
        if model != "mirror":
            assert left != right
            versions.add(tokens == right)
            assert tokens == right or began_s < ended_s, "after the deploy there is only the new version"
    assert versions == {False, True}, "both versions answered while the pools were made anew"

    after = await asyncio.to_thread(head.replicas)
    assert not before["heliostat-prefill-home"] & after["heliostat-prefill-home"]
    assert not before["heliostat-decode-base"] & after["heliostat-decode-base"]
    assert before["heliostat-prefill-mirror"] == after["heliostat-prefill-mirror"]


def test_an_engine_that_does_not_start_is_one_line_and_what_was_there_serves_on(head) -> None:
    broken = head.folder / "calibration.json"
    broken.write_text("{}")
    more = "  twin: {prefill: home, decode: base, limits: {weight: 2}}"
    head.write(spec_text(head.folder, home="base", replicas=2, more=more, sim=f", calibration: {broken}"))
    failed = head.run("deploy")
    assert failed.returncode == 1
    assert "pool decode.base: the engine did not start" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "replicas that serve now:" in failed.stderr and "decode.base" in failed.stderr
    answer = httpx.post(
        f"{head.url}/v1/completions",
        json={"model": "home", "prompt": [60, 61, 62], "max_tokens": 3},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text

    head.write(spec_text(head.folder, home="base", replicas=2, more=more, sim=", per_request_ms: 0.01"))
    back = head.run("deploy")
    assert back.returncode == 0, back.stdout + back.stderr


def test_down_removes_ours_and_nothing_else(head) -> None:
    gone = head.run("down")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert set(ServeApi(head.address).details().applications) == {"other"}
    assert httpx.get(f"{head.url}/other", timeout=30).text == "not ours"
    assert "nothing to do" in head.run("down").stdout

from dataclasses import replace
from itertools import pairwise

import pytest

from heliostat.errors import HeliostatError
from simulator.timing import (
    A100,
    B200,
    GPUS,
    H100,
    H200,
    KNOWN,
    Adapters,
    Chunk,
    Corrections,
    Roofline,
    Timing,
    gpu_named,
    kv_capacity_tokens,
)

LLAMA_8B = KNOWN["meta-llama/Llama-3.1-8B"]
ROOFLINE = Roofline(H100, LLAMA_8B)
IDEAL = Corrections(
    step_overhead_ms=0,
    per_request_ms=0,
    memory_efficiency=1,
    compute_efficiency=1,
    attention_efficiency=1,
    all_reduce_efficiency=1,
    all_reduce_ms=0,
    handoff_efficiency=1,
    handoff_latency_ms=0,
)
VARIANTS = [
    ROOFLINE,
    Roofline(H200, LLAMA_8B, gpus=4, weight_bits=8, kv_bits=8),
    Roofline(A100, LLAMA_8B, weight_bits=4, rows_per_request=2, adapters=Adapters(rank=16, per_step=4)),
    Roofline(B200, LLAMA_8B, weight_bits=4, compute_bits=4),
]


@pytest.mark.parametrize("roofline", VARIANTS)
def test_a_step_without_chunks_is_the_decode_line(roofline: Roofline) -> None:
    timing: Timing = roofline
    for requests in (1, 7, 64, 300, 1024):
        line = timing.decode_line(requests)
        for context in (0, requests * 17, requests * 4000):
            assert timing.step_ms(requests, context, ()) == line.base_ms + line.per_token_ms * context


@pytest.mark.parametrize("roofline", VARIANTS)
def test_more_work_takes_longer(roofline: Roofline) -> None:
    steps = [
        roofline.step_ms(0, 0, (Chunk(512, 0),)),
        roofline.step_ms(1, 100, (Chunk(512, 0),)),
        roofline.step_ms(64, 100, (Chunk(512, 0),)),
        roofline.step_ms(64, 50_000, (Chunk(512, 0),)),
        roofline.step_ms(64, 50_000, (Chunk(512, 8192),)),
        roofline.step_ms(64, 50_000, (Chunk(2048, 8192),)),
        roofline.step_ms(64, 50_000, (Chunk(2048, 8192), Chunk(512, 0))),
    ]
    assert all(before < after for before, after in pairwise(steps))
    assert roofline.step_ms(64, 50_000, ()) < steps[3]


def test_an_h100_decodes_8b_at_batch_one_as_fast_as_its_memory() -> None:
    assert 5.0 < ROOFLINE.step_ms(1, 1000, ()) < 8.0
    # 7.5 billion weights of two bytes, the embeddings left out, over 3.35 TB/s.
    ideal = replace(ROOFLINE, corrections=IDEAL).step_ms(1, 0, ())
    assert ideal == pytest.approx(2 * (LLAMA_8B.linear_params + LLAMA_8B.lm_head_params) / 3350e6)


def test_int4_weights_are_read_three_times_as_fast_and_computed_no_faster() -> None:
    full = replace(ROOFLINE, corrections=IDEAL)
    int4 = replace(full, weight_bits=4)
    assert 2.8 < full.step_ms(1, 0, ()) / int4.step_ms(1, 0, ()) < 3.5
    assert int4.step_ms(0, 0, (Chunk(8192, 0),)) == full.step_ms(0, 0, (Chunk(8192, 0),))


def test_an_h100_prefills_8k_tokens_in_a_plausible_time() -> None:
    assert 200 < ROOFLINE.step_ms(0, 0, (Chunk(8192, 0),)) < 500


def test_cached_tokens_are_read_not_computed() -> None:
    whole = ROOFLINE.step_ms(0, 0, (Chunk(8192, 0),))
    rest = ROOFLINE.step_ms(0, 0, (Chunk(1024, 7168),))
    assert rest < whole / 4
    assert rest > ROOFLINE.step_ms(0, 0, (Chunk(1024, 0),))


def test_weights_are_read_once_whatever_the_batch() -> None:
    ideal = replace(ROOFLINE, corrections=IDEAL)
    assert ideal.decode_line(128).base_ms == ideal.decode_line(1).base_ms
    assert ideal.decode_line(1024).base_ms > 2 * ideal.decode_line(128).base_ms


def test_icarus_doubles_the_rows_and_reads_kv_once() -> None:
    single = replace(ROOFLINE, corrections=IDEAL)
    double = replace(single, rows_per_request=2)
    assert double.decode_line(16) == single.decode_line(16)
    # Bound by compute in linear layers and head: twice the rows, but the head's are the decoder's alone.
    head_ms = LLAMA_8B.lm_head_flops(2048) / 989.5e9
    difference = double.decode_line(2048).base_ms - single.decode_line(2048).base_ms
    assert difference == pytest.approx(single.decode_line(2048).base_ms - head_ms)
    assert double.context_kernel(1).memory_ms == single.context_kernel(1).memory_ms
    assert double.context_kernel(1).compute_ms == 2 * single.context_kernel(1).compute_ms


def test_adapters_cost_their_bytes_once_each_and_their_flops_per_token() -> None:
    plain = replace(ROOFLINE, corrections=IDEAL)
    params = LLAMA_8B.adapter_params(16)
    adapted = replace(plain, adapters=Adapters(rank=16, per_step=8))
    for requests, distinct in ((1, 1), (8, 8), (64, 8)):
        more = adapted.decode_line(requests).base_ms - plain.decode_line(requests).base_ms
        assert more == pytest.approx(2 * params * distinct / 3350e6)
    chunk = (Chunk(8192, 0),)
    more = adapted.step_ms(0, 0, chunk) - plain.step_ms(0, 0, chunk)
    assert more == pytest.approx(2 * params * 8192 / 989.5e9)


def test_tensor_parallelism_divides_the_work_and_adds_all_reduces() -> None:
    one = replace(ROOFLINE, corrections=IDEAL)
    four = replace(one, gpus=4)
    moved = 8 * 4096 * 2 * 2 * 3 / 4
    all_reduces = 2 * 32 * moved / 450e6
    assert four.decode_line(8).base_ms == pytest.approx(one.decode_line(8).base_ms / 4 + all_reduces)
    # Eight KV heads on sixteen GPUs: each holds one.
    sixteen = replace(one, gpus=16)
    assert sixteen.decode_line(8).per_token_ms == pytest.approx(one.decode_line(8).per_token_ms / 8)


def test_a_handoff_takes_latency_and_the_link() -> None:
    gigabyte = 10**9
    assert replace(ROOFLINE, corrections=IDEAL).handoff_ms(gigabyte) == pytest.approx(20.0)
    assert replace(ROOFLINE, corrections=IDEAL, link_gb_per_s=10.0).handoff_ms(gigabyte) == pytest.approx(
        100.0
    )
    assert ROOFLINE.handoff_ms(gigabyte) == pytest.approx(1.0 + 20.0 / 0.8)


def test_kv_capacity_is_what_the_weights_leave() -> None:
    # 80 GiB * 0.9 - 2 GiB - 14.96 GiB of weights, at 128 KiB per token.
    assert kv_capacity_tokens(H100, LLAMA_8B) == pytest.approx((72 - 2 - 14.958) * 2**13, rel=1e-4)
    assert kv_capacity_tokens(H100, LLAMA_8B, gpus=2) > 2 * kv_capacity_tokens(H100, LLAMA_8B)
    assert kv_capacity_tokens(H100, LLAMA_8B, kv_bits=8) == pytest.approx(
        2 * kv_capacity_tokens(H100, LLAMA_8B), abs=1
    )


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(HeliostatError, match=r"122\.0 GiB.*1 x H100.*more GPUs"):
        kv_capacity_tokens(H100, KNOWN["Qwen/Qwen3-32B"], weight_bits=32)


def test_gpus_are_found_by_name_in_any_case() -> None:
    assert gpu_named("h100") is H100 and gpu_named("H200") is H200
    assert set(GPUS) == {"a100", "h100", "h200", "b200"}
    with pytest.raises(HeliostatError, match=r"`v100`.*h100"):
        gpu_named("v100")


def test_a_width_that_the_chip_lacks_is_refused() -> None:
    assert B200.tflops(4) == 9000
    with pytest.raises(HeliostatError, match=r"H100.*4 bit"):
        H100.tflops(4)

"""What a run was told, in numbers: what a program compares runs by."""

import argparse

from pydantic import JsonValue

from cluster.bench_figures import Frozen
from cluster.bench_setup import Setup
from cluster.bench_tokenize import Api


class Flags(Frozen):
    """As given or by default; None where it did not apply.

    `streams`: how many requests of the closed loop were there at a time, which may be fewer than its
    `concurrency`. `exact_length`: answers were to go on to `output_tokens`, after their end too. The warm-up
    is a closed loop of `concurrency`, also before an open one.
    """

    api: Api
    requests: int | None
    duration_s: float | None
    rate_per_s: float | None
    concurrency: int
    streams: int | None
    warmup: int
    prompt_tokens: int | None
    shared_prefix_tokens: int | None
    requests_per_session: int | None
    dataset: str | None
    dataset_prompts: int | None
    output_tokens: int
    exact_length: bool
    temperature: float | None
    extra_body: dict[str, JsonValue]
    zipf: float | None
    timeout_s: float


def flags_of(args: argparse.Namespace, setup: Setup, requests: int | None) -> Flags:
    """`requests`: the limit that held, if there was one."""
    prompts = None if setup.rows else setup.prompts
    return Flags(
        api=args.api,
        requests=requests,
        duration_s=args.duration,
        rate_per_s=args.rate,
        concurrency=args.concurrency,
        streams=None if args.rate else setup.streams(args.concurrency, requests),
        warmup=args.warmup,
        prompt_tokens=prompts and prompts.tokens,
        shared_prefix_tokens=prompts and prompts.shared_tokens,
        requests_per_session=prompts and prompts.requests_per_session,
        dataset=str(args.dataset) if args.dataset else None,
        dataset_prompts=len(setup.rows) or None,
        output_tokens=args.output_tokens,
        exact_length=setup.asking.dialect.ignore_eos,
        temperature=0.0 if setup.asking.dialect.temperature else None,
        extra_body=args.extra_body or {},
        zipf=args.zipf,
        timeout_s=args.timeout,
    )

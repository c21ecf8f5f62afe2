"""Which steps and copies `benchmarks.gpu_calibrate` measures, and the loops over them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from benchmarks.gpu_clock import Repetitions, median_ms
from benchmarks.gpu_decoder import Decoder
from simulator.timing import DecodeSample, Geometry, HandoffSample, PrefillSample

T = TypeVar("T")
R = TypeVar("R")

Note = Callable[[str], None]
"""Says one line to the person who waits."""


class Prompt(NamedTuple):
    """So many new tokens behind so many that have their KV already."""

    new: int
    cached: int = 0


@dataclass(frozen=True)
class Plan:
    """`batches` times `contexts` (tokens of each request) as far as KV fits, prompts, and bytes to copy."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    int4_contexts: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    int4_prompts: tuple[Prompt, ...]
    copies: tuple[int, ...]
    repetitions: Repetitions

    @property
    def most_kv_tokens(self) -> int:
        """With which nothing is left out."""
        decode = max(self.batches) * max(*self.contexts, *self.int4_contexts)
        return max(decode, *(sum(prompt) for prompt in (*self.prompts, *self.int4_prompts)))


MIB = 2**20
WHOLE = Plan(
    batches=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    contexts=(512, 2048, 8192, 32768),
    int4_contexts=(512, 2048),
    prompts=(
        *(Prompt(tokens) for tokens in (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)),
        # A chunk of a longer prompt, as chunked prefill and prefix caches have it.
        *(Prompt(2048, cached) for cached in (2048, 8192, 30720)),
    ),
    # tinygemm is slow on many rows, and says nothing about the kernels that engines use there.
    int4_prompts=(Prompt(128), Prompt(256), Prompt(512)),
    copies=(MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB),
    repetitions=Repetitions(20),
)
TINY = Plan(
    batches=(1, 2, 4),
    contexts=(16, 64),
    int4_contexts=(16, 64),
    prompts=(Prompt(16), Prompt(64), Prompt(128), Prompt(16, 64)),
    int4_prompts=(Prompt(16), Prompt(32), Prompt(64)),
    copies=(2**16, 2**18, 2**20),
    repetitions=Repetitions(3, budget_s=0.1),
)
TINY_GEOMETRY = Geometry(2, 64, 4, 2, 16, 128, 256)

HEAD_ROOM = 0.7
"""The share of free memory that KV may take; activations and captured graphs get the rest."""


def kv_room(geometry: Geometry, device: torch.device, weight_bits: int, plan: Plan) -> int:
    """Tokens of KV to hold beside the weights: what the plan wants, or what fits."""
    if device.type != "cuda":
        return plan.most_kv_tokens
    free, _ = torch.cuda.mem_get_info(device)
    room = (free - geometry.weight_bytes(weight_bits)) * HEAD_ROOM / geometry.kv_bytes_per_token()
    return max(max(sum(prompt) for prompt in plan.prompts), min(plan.most_kv_tokens, int(room)))


def decode_samples(
    decoder: Decoder, batches: Iterable[int], contexts: Iterable[int], repetitions: Repetitions, note: Note
) -> tuple[DecodeSample, ...]:
    """A step for each batch and context whose KV fits; the context counts the new token."""
    points = [(batch, context) for batch in batches for context in contexts]
    fitting = [point for point in points if point[0] * point[1] <= decoder.kv_tokens]
    if left := len(points) - len(fitting):
        note(f"{left} of {len(points)} decode steps left out: their KV does not fit beside the weights")

    def measure(point: tuple[int, int]) -> DecodeSample:
        batch, context = point
        kv = decoder.kv(batch, context)
        tokens = torch.randint(decoder.geometry.vocab, (batch, 1), device=decoder.device)

        def step() -> torch.Tensor:
            return decoder.logits(decoder.hidden(tokens, kv, context - 1)).argmax(dim=-1)

        step_ms = median_ms(step, decoder.device, repetitions)
        note(f"decode   batch {batch:4}  context {context:6}  {step_ms:9.3f} ms")
        return DecodeSample(requests=batch, context_tokens=batch * context, step_ms=step_ms)

    return tuple(_measured(measure, fitting, "decode step of", note))


def prefill_samples(
    decoder: Decoder, prompts: Iterable[Prompt], repetitions: Repetitions, note: Note
) -> tuple[PrefillSample, ...]:
    """Each prompt alone, without the output head: a prefill replica makes KV, its token is not used."""

    def measure(prompt: Prompt) -> PrefillSample:
        kv = decoder.kv(1, sum(prompt))
        tokens = torch.randint(decoder.geometry.vocab, (1, prompt.new), device=decoder.device)
        ms = median_ms(lambda: decoder.hidden(tokens, kv, prompt.cached), decoder.device, repetitions)
        note(f"prefill  new {prompt.new:6}  cached {prompt.cached:6}  {ms:9.3f} ms")
        return PrefillSample(new_tokens=prompt.new, cached_tokens=prompt.cached, ms=ms)

    return tuple(_measured(measure, prompts, "prefill of", note))


@dataclass(frozen=True)
class Copies:
    """By way. `to_device` is what a handoff over host memory takes last, so it stands for handoffs."""

    within_device: tuple[HandoffSample, ...]
    from_device: tuple[HandoffSample, ...]
    to_device: tuple[HandoffSample, ...]


def copies(device: torch.device, sizes: Iterable[int], repetitions: Repetitions, note: Note) -> Copies:
    """Copies within the device, and from and to host memory, which is pinned where the device is a GPU."""
    pinned = device.type == "cuda"

    def measure(way: str, num_bytes: int) -> HandoffSample:
        here = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8, device=device)
        # `torch.ones` and not `empty`, so that every page is there before the time.
        there = torch.ones(num_bytes, dtype=torch.uint8, pin_memory=pinned)
        target, source = {
            "within device": (torch.empty_like(here), here),
            "from device": (there, here),
            "to device": (here, there),
        }[way]
        ms = median_ms(lambda: target.copy_(source, non_blocking=True), device, repetitions, graph=False)
        note(f"copy     {way:<13}  {num_bytes / MIB:9.2f} MiB  {ms:9.3f} ms")
        return HandoffSample(num_bytes=num_bytes, ms=ms)

    sizes = tuple(sizes)

    def each(way: str) -> tuple[HandoffSample, ...]:
        return tuple(_measured(lambda size: measure(way, size), sizes, f"copy {way} of", note))

    return Copies(each("within device"), each("from device"), each("to device"))


def _measured(measure: Callable[[T], R], points: Iterable[T], what: str, note: Note) -> Iterator[R]:
    """One that fails is said and left out, so that an hour on a lent GPU does not end with nothing."""
    for point in points:
        try:
            yield measure(point)
        except RuntimeError as error:  # torch's, out of memory among them
            note(f"{what} {point} left out: {str(error).strip().splitlines()[0]}")

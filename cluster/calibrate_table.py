"""What was measured against what the fit says, for people."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from simulator.timing import Calibration, Chunk, Corrections, RelativeError, Roofline, correct, gpu_named


def render(calibration: Calibration, console: Console) -> None:
    """A row per sample, the errors of each kind, and what the fit came to."""
    timing, samples = calibration.timing, calibration.samples
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("what", "size"):
        table.add_column(heading)
    for heading in ("measured ms", "fitted ms", "error"):
        table.add_column(heading, justify="right")
    for row in (
        *(
            ("prefill", f"{each.new_tokens} behind {each.cached_tokens}", each.ms,
             timing.step_ms(0, 0, (Chunk(each.new_tokens, each.cached_tokens),)))
            for each in samples.prefill
        ),
        *(
            ("decode", f"{each.requests} with {each.context_tokens} tokens", each.step_ms,
             timing.step_ms(each.requests, each.context_tokens, ()))
            for each in samples.decode
        ),
        *(
            ("handoff", f"{each.num_bytes / 2**20:.2f} MiB", each.ms, timing.handoff_ms(each.num_bytes))
            for each in samples.handoff
        ),
    ):  # fmt: skip
        what, size, measured, fitted = row
        table.add_row(
            what, size, f"{measured:.2f}", f"{fitted:.2f}", f"{(fitted / measured - 1) * 100:+.0f} %"
        )
    console.print(table)
    for line in _notes(calibration):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _notes(calibration: Calibration) -> Iterable[str]:
    off = calibration.accuracy
    for what, error in (("prefill", off.prefill), ("decode", off.decode), ("handoff", off.handoff)):
        if error is not None:
            yield f"{what}: {_percent(error)}"
    if (host := calibration.host) is not None:
        crowd = ", ".join(f"{number}: {slow:.2f} x" for number, slow in host.slowdowns.items())
        yield (
            f"host: {host.cores} cores; an engine alone takes {host.cores_per_engine:.2f}; slower side by "
            f"side ({crowd}); {host.engines:.2f} engines at full pace"
        )
    if (corrections := corrections_of(calibration)) is not None:
        yield f"roofline of {calibration.setup.gpu}: " + ", ".join(
            f"{name} {value:.3g}" for name, value in corrections.model_dump().items()
        )


def corrections_of(calibration: Calibration) -> Corrections | None:
    """Those of the GPU's roofline, None where the GPU has no datasheet."""
    setup = calibration.setup
    if setup.gpu is None:
        return None
    roofline = Roofline(
        gpu_named(setup.gpu),
        setup.geometry,
        gpus=setup.gpus,
        weight_bits=setup.weight_bits,
        kv_bits=setup.kv_bits,
    )
    return correct(calibration.samples, roofline)


def _percent(error: RelativeError) -> str:
    return f"the fit is off by {error.median:.1%} in the median, {error.p90:.1%} at p90"

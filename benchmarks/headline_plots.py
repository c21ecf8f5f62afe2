"""The headlines' plots, drawn from the figures alone, so that a plot never says more than headlines.json."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_qsun import LOADS
from benchmarks.headline_runs import Metrics

OURS, BASE = "#1b6ca8", "#c4551d"

matplotlib.use("svg")
# The same figures give the same file: no ids drawn at random, and text that stays text.
matplotlib.rcParams.update({"svg.hashsalt": "heliostat", "svg.fonttype": "none", "font.size": 9})


def draw(metrics: Metrics, folder: Path) -> list[Path]:
    """Draw every plot whose figures are there into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (prefix, panels) in PLOTS.items():
        if not any(key.startswith(prefix) for key in metrics):
            continue
        figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2))
        for place, panel in zip(axes, panels, strict=True):
            panel(place, metrics)
            place.set_ylim(bottom=0)
            place.grid(alpha=0.3)
        figure.tight_layout()
        written.append(folder / f"{name}.svg")
        figure.savefig(written[-1], metadata={"Date": None})
        pyplot.close(figure)
    return written


def _pair(
    axes: Axes, metrics: Metrics, keys: Sequence[str], x: Sequence[float], labels: tuple[str, str]
) -> None:
    """Value and peer of these figures over x."""
    axes.plot(x, [metrics[key].value for key in keys], "o-", color=OURS, label=labels[0])
    peers = [peer for key in keys if (peer := metrics[key].peer) is not None]
    axes.plot(x, peers, "s--", color=BASE, label=labels[1])
    axes.legend()


def _sun_goodput(axes: Axes, metrics: Metrics) -> None:
    keys = [f"sun_decode_n8_zipf{zipf:g}_goodput_per_gpu" for zipf in assumed.SUN_ZIPF]
    _pair(axes, metrics, keys, assumed.SUN_ZIPF, ("SUN", "dedicated"))
    axes.set(xlabel="Zipf exponent", ylabel="goodput per decode GPU, req/s", title="8 models, 8 decode GPUs")


def _sun_half(axes: Axes, metrics: Metrics) -> None:
    keys = [f"sun_half_gpus_limit_n8_zipf{zipf:g}_tpot_p50" for zipf in assumed.SUN_ZIPF]
    _pair(axes, metrics, keys, assumed.SUN_ZIPF, ("SUN, 4 decode GPUs", "dedicated, 8"))
    axes.set(xlabel="Zipf exponent", ylabel="TPOT p50, ms", title="at the load that dedicated just carries")


def _qsun_tpot(axes: Axes, metrics: Metrics) -> None:
    keys = [f"qsun_{load}_tpot_p50" for load in LOADS]
    _pair(axes, metrics, keys, list(LOADS.values()), ("QSUN", "SUN"))
    axes.set(xlabel="load, of what SUN carries", ylabel="TPOT p50, ms", title="4 models, 4 decode GPUs")


def _qsun_gain(axes: Axes, metrics: Metrics) -> None:
    for suffix, label in (("", "H100"), ("_a100", "A100"), ("_context_x4", "H100, context x4")):
        gains = [metrics[f"qsun_{load}{suffix}_tpot_gain"].value for load in LOADS]
        axes.plot(list(LOADS.values()), gains, "o-", label=label)
    axes.axhline(1.45, color="grey", linewidth=0.8)
    axes.legend()
    axes.set(xlabel="load", ylabel="TPOT of SUN over QSUN", title="where 4 bits pay")


def _sessions(kind: str, figure: str, ylabel: str) -> Callable[[Axes, Metrics], None]:
    def panel(axes: Axes, metrics: Metrics) -> None:
        rates = assumed.PREFILLSHARE_RATES[kind]
        keys = [f"prefillshare_{kind}_{rate:g}_{figure}" for rate in rates]
        _pair(axes, metrics, keys, rates, ("PrefillShare", "dedicated"))
        axes.set(xlabel="sessions/s", ylabel=ylabel, title=f"{kind}, 8 A100")

    return panel


def _adapters(n: int, figure: str, ylabel: str) -> Callable[[Axes, Metrics], None]:
    def panel(axes: Axes, metrics: Metrics) -> None:
        keys = [f"icarus_n{n}_{rate:g}_{figure}" for rate in assumed.ICARUS_RATES]
        _pair(axes, metrics, keys, assumed.ICARUS_RATES, ("ICaRus", "LoRA per model"))
        axes.set(xlabel="sessions/s", ylabel=ylabel, title=f"{n} adapters, one A100")

    return panel


PLOTS: dict[str, tuple[str, list[Callable[[Axes, Metrics], None]]]] = {
    "sun": ("sun_decode_n8", [_sun_goodput, _sun_half]),
    "qsun": ("qsun_small_a100", [_qsun_tpot, _qsun_gain]),
    "prefillshare": (
        "prefillshare_react",
        [
            _sessions("react", "session_p95", "session p95, s"),
            _sessions("react", "throughput", "tok/s"),
            _sessions("react", "prefix_hits", "prefix hits, %"),
        ],
    ),
    "prefillshare-reflexion": (
        "prefillshare_reflexion",
        [
            _sessions("reflexion", "session_p95", "session p95, s"),
            _sessions("reflexion", "throughput", "tok/s"),
            _sessions("reflexion", "prefix_hits", "prefix hits, %"),
        ],
    ),
    "icarus": (
        "icarus_n8",
        [
            _adapters(8, "session_p95", "session p95, s"),
            _adapters(8, "throughput", "tok/s"),
            _adapters(2, "throughput", "tok/s"),
        ],
    ),
}
"""By the file's name: which figures it needs, and its panels."""

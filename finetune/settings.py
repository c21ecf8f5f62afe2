"""What one fine-tuning run is told; `heliostat finetune`'s flags, for callers in Python too."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from heliostat.errors import HeliostatError
from kvtransfer.adapter import KEYS_AND_VALUES
from kvtransfer.card import Method

ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ICARUS_LINEARS = tuple(name for name in ALL_LINEARS if name not in KEYS_AND_VALUES)
METHODS = (Method.SUN, Method.QSUN, Method.PREFILL_SHARE, Method.ICARUS, Method.FULL)
Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Lora:
    """An adapter instead of full weights; no targets: the method's default."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from. `held_out`: a file of its own, or the share (0 to 1) taken from `source`."""

    source: str
    split: str = "train"
    held_out: Path | float | None = None
    raw: bool = False
    max_length: int | None = None


@dataclass(frozen=True)
class Settings:
    """One run. `steps`, of the optimizer, go before `epochs`; the learning rate falls to `floor`."""

    method: Method
    base: str
    out: Path
    decode: Path | None = None
    lora: Lora | None = None
    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = 2e-5
    warmup: int = 0
    schedule: Schedule = "cosine"
    floor: float = 0.05
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    seed: int = 0
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    eval_every: int | None = None
    save_every: int | None = None
    resume: bool = False
    one_forward: bool = True
    bar: bool = field(default=False, compare=False)

    @property
    def adapter(self) -> Lora | None:
        """The adapter with its targets filled in; ICaRus always has one."""
        lora = self.lora or (Lora() if self.method is Method.ICARUS else None)
        if lora is None or lora.targets:
            return lora
        return Lora(lora.rank, lora.alpha, ICARUS_LINEARS if self.method is Method.ICARUS else ALL_LINEARS)

    @property
    def role(self) -> Literal["prefill", "decode", "both"]:
        """The role in which the module serves."""
        if self.method is Method.FULL:
            return "both"
        return "prefill" if self.method in (Method.SUN, Method.QSUN) else "decode"

    def check(self) -> None:
        """Raise HeliostatError for settings that do not fit together."""
        if self.method not in METHODS:
            raise HeliostatError(
                f"method {self.method}: not a way of training; `heliostat quantize` makes it"
            )
        if (self.method is Method.QSUN) != (self.decode is not None):
            raise HeliostatError(
                "--decode DIR, the quantized decode module, goes with qsun and with nothing else"
            )
        adapter = self.adapter
        if adapter and adapter.rank < 1:
            raise HeliostatError(f"--lora {adapter.rank}: the rank must be 1 or more")
        keys_values = sorted(set(adapter.targets) & KEYS_AND_VALUES) if adapter else []
        if self.method is Method.ICARUS and keys_values:
            raise HeliostatError(
                f"--lora-targets {', '.join(keys_values)}: under ICaRus the base writes all keys and "
                f"values, so an adapter on them would do nothing; take from {', '.join(ICARUS_LINEARS)}"
            )
        if self.method is Method.ICARUS and self.gradient_checkpointing:
            raise HeliostatError(
                "--gradient-checkpointing does not go with icarus, whose adapter reads a cache; lower "
                "--batch-size and raise --gradient-accumulation instead"
            )

    def facts(self) -> dict[str, JsonValue]:
        """Everything that changes the weights, as JSON: a resumed run must agree on it."""
        facts = asdict(self)
        for name in ("out", "base", "decode", "resume", "bar", "eval_every", "save_every", "lora"):
            del facts[name]
        adapter = self.adapter
        if adapter:
            facts |= {
                "lora": {"rank": adapter.rank, "alpha": adapter.alpha, "targets": list(adapter.targets)}
            }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}

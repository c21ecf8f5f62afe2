"""The calibration file: what was measured, on what, the fit, and how far off it is.

It keeps the samples, so that a reader can check the fit, and another model can be fitted to them:
`simulator.timing.roofline_fit` carries a calibration from one geometry to another.
"""

from datetime import date
from pathlib import Path
from statistics import median
from typing import Self

from pydantic import Field, ValidationError

from heliostat.errors import HeliostatError
from simulator.timing.calibrated import Calibrated, Coefficients, fit
from simulator.timing.complaints import complaints
from simulator.timing.geometry import Geometry
from simulator.timing.samples import Accuracy, FrozenFile, Samples, accuracy


class Setup(FrozenFile):
    """What was measured: enough to do it again, and to know what else it holds for."""

    machine: str = Field(description="For people: GPU or CPU, cores, memory.")
    engine: str = Field(description="`vllm`, `torch` or another name of what computed.")
    versions: dict[str, str] = Field(description="Of the engine and what it stands on, by package.")
    measured_on: date
    model: str = Field(description="The hub name or directory of the module.")
    geometry: Geometry
    gpu: str | None = Field(default=None, description="A name in `GPUS`; null where there is no datasheet.")
    gpus: int = Field(default=1, ge=1, description="Of one replica.")
    weight_bits: int = Field(default=16, gt=0)
    kv_bits: int = Field(default=16, gt=0)


class HostShare(FrozenFile):
    """Engines without a GPU share the cores of their host: how many of them it carries.

    `slowdowns` has, by how many engines compute at once, what each of them takes longer by.
    """

    cores: int = Field(ge=1)
    cores_per_engine: float = Field(gt=0, description="CPU seconds per second of one that computes alone.")
    slowdowns: dict[int, float]

    @property
    def engines(self) -> float:
        """So many compute at full pace (`Options.host_cores`); of n each takes n over this longer."""
        return float(median(number / slowdown for number, slowdown in self.slowdowns.items()))


class Calibration(FrozenFile):
    """A whole file. `accuracy` is of `coefficients` on `samples`; `host` is null where engines have GPUs."""

    setup: Setup
    samples: Samples
    coefficients: Coefficients
    accuracy: Accuracy
    host: HostShare | None = None

    @classmethod
    def of(cls, setup: Setup, samples: Samples, host: HostShare | None = None) -> Self:
        """Fitted to the samples. Raises HeliostatError if they are too few."""
        coefficients = fit(samples)
        return cls(
            setup=setup,
            samples=samples,
            coefficients=coefficients,
            accuracy=accuracy(Calibrated(coefficients), samples),
            host=host,
        )

    @property
    def timing(self) -> Calibrated:
        """The timing model of what was measured."""
        return Calibrated(self.coefficients)

    def save(self, path: Path) -> None:
        """Writes the file, over what was there."""
        path.write_text(self.model_dump_json(indent=1) + "\n")


def load_calibration(path: Path) -> Calibration:
    """Reads what `Calibration.save` wrote. Raises HeliostatError with the file and each key that is wrong."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise HeliostatError(
            f"{path}: cannot be read: {error.strerror}; `heliostat calibrate` makes a calibration file"
        ) from error
    try:
        return Calibration.model_validate_json(text)
    except ValidationError as error:
        raise HeliostatError(
            f"{path}: no calibration file: {complaints(error)}; `heliostat calibrate` makes one"
        ) from error

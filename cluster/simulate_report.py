"""What `heliostat simulate --json` prints."""

from statistics import median

from pydantic import BaseModel, ConfigDict

from simulator.plots import Point
from simulator.summary import Summary


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(_Frozen):
    """One topology under one load: a summary for each round."""

    topology: str
    load: float
    rounds: tuple[Summary, ...]


class Try(_Frozen):
    """One cluster of a search; `replicas` by `role.pool`."""

    replicas: dict[str, int]
    gpus: int
    good_share: float
    met: bool


class SearchReport(_Frozen):
    """The fewest GPUs of one topology under one load; `gpus` is None where none are enough."""

    topology: str
    load: float
    gpus: int | None
    replicas: dict[str, int]
    complete: bool
    remark: str
    tries: tuple[Try, ...]


class Report(_Frozen):
    """One call of the command. `load` says what varies over `cells`, with its unit."""

    spec: str
    gpu: str
    load: str
    cells: tuple[Cell, ...]
    searches: tuple[SearchReport, ...] = ()

    @property
    def topologies(self) -> tuple[str, ...]:
        """In the order asked for."""
        return tuple(dict.fromkeys(cell.topology for cell in self.cells))

    @property
    def loads(self) -> tuple[float, ...]:
        return tuple(dict.fromkeys(cell.load for cell in self.cells))

    def at(self, load: float) -> list[Cell]:
        """The cells of one load, a topology each."""
        return [cell for cell in self.cells if cell.load == load]

    def curves(self) -> dict[str, list[Point]]:
        """For plots: each topology's points over the loads."""
        return {
            topology: [Point(cell.load, cell.rounds) for cell in self.cells if cell.topology == topology]
            for topology in self.topologies
        }


def middle(values: list[float | None]) -> float | None:
    """The median of what is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None

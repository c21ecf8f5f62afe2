"""What is usual for a model: how long its answers are, and how long they take."""

SMOOTHING = 0.1
"""Weight of the newest value: about the last 20 answers count."""


class Average:
    """An exponential average; None before the first value."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, value: float) -> None:
        """One more value."""
        self.value = value if self.value is None else self.value + SMOOTHING * (value - self.value)

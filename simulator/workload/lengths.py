"""How many tokens prompts and answers have. In YAML a plain number N means `{kind: fixed, tokens: N}`."""

import math
import random
from collections.abc import Callable
from functools import cached_property
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_NORMAL = NormalDist()


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Fixed(_Frozen):
    """Always the same."""

    kind: Literal["fixed"] = "fixed"
    tokens: int = Field(ge=1)

    def drawn_from(self, rng: random.Random) -> Callable[[], int]:
        """A function that draws one length per call, at least 1 token."""
        return lambda: self.tokens

    def __str__(self) -> str:
        return f"{self.tokens}"


class Uniform(_Frozen):
    """Every whole number from `low` to `high`, both included, is as likely."""

    kind: Literal["uniform"] = "uniform"
    low: int = Field(ge=1)
    high: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Uniform":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is larger than high {self.high}; raise high or lower low")
        return self

    def drawn_from(self, rng: random.Random) -> Callable[[], int]:
        """A function that draws one length per call, at least 1 token."""
        low, count = self.low, self.high - self.low + 1
        # `randint` takes four times as long; a float's 53 bits are plenty for lengths.
        return lambda: low + int(rng.random() * count)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


class LogNormal(_Frozen):
    """Many short ones and a long tail, as in chat traffic; what is longer than `cap` has `cap` tokens.

    `mean` is the mean of what is drawn, after the cap. `sigma` is the standard deviation of the logarithm.
    """

    kind: Literal["lognormal"] = "lognormal"
    mean: float = Field(ge=1)
    cap: int = Field(ge=1)
    sigma: float = Field(default=1.0, gt=0, le=3)

    @model_validator(mode="after")
    def _mean_below_cap(self) -> "LogNormal":
        if self.mean >= self.cap:
            raise ValueError(f"mean {self.mean:g} is not below cap {self.cap}; raise cap or lower mean")
        return self

    @cached_property
    def mu(self) -> float:
        """The mean of the logarithm without the cap, such that the mean under the cap is `mean`."""
        low, high = math.log(self.mean) - self.sigma**2, math.log(self.cap) + 10.0 * self.sigma
        for _ in range(60):
            middle = (low + high) / 2.0
            if self._capped_mean(middle) < self.mean:
                low = middle
            else:
                high = middle
        return high

    def _capped_mean(self, mu: float) -> float:
        """E[min(X, cap)] of a lognormal X: its limited expected value (Klugman et al., Loss Models, A.4)."""
        z = (math.log(self.cap) - mu) / self.sigma
        below = math.exp(mu + self.sigma**2 / 2.0) * _NORMAL.cdf(z - self.sigma)
        return below + self.cap * _NORMAL.cdf(-z)

    def drawn_from(self, rng: random.Random) -> Callable[[], int]:
        """A function that draws one length per call, at least 1 token."""
        mu, sigma, cap = self.mu, self.sigma, self.cap
        return lambda: max(1, round(min(rng.lognormvariate(mu, sigma), cap)))

    def __str__(self) -> str:
        return f"lognormal of mean {self.mean:g} up to {self.cap}"


def _from_number(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"kind": "fixed", "tokens": value}
    return value


Lengths = Annotated[Fixed | Uniform | LogNormal, Field(discriminator="kind"), BeforeValidator(_from_number)]

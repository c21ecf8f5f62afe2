"""Least squares without negative coefficients, for the few features that a step's time has.

A negative cost would fit noise and then, far from the samples, give negative times. With so few features
every set of them can be tried: the solution of Lawson and Hanson's problem NNLS ("Solving Least Squares
Problems", chapter 23) is the plain least-squares solution on the set where it is positive.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

MAX_FEATURES = 6

NOTHING = 1e-15
"""A feature that takes less than this off the mean squared relative error explains nothing."""


def fit_relative(features: Matrix, targets: Matrix) -> Matrix:
    """Coefficients [k] >= 0 that minimise the mean of `((features @ x - targets) / targets) ** 2`.

    `features` is [n, k], `targets` [n] and positive. Relative, so that a step of 5 ms counts as much as a
    prefill of 500. What the samples do not tell apart goes to the first of the features that could explain
    it, and the others get 0. Raises ValueError for more than `MAX_FEATURES` features.
    """
    count = features.shape[1]
    if count > MAX_FEATURES:
        raise ValueError(f"{count} features; trying all sets of more than {MAX_FEATURES} takes too long")
    rows = features / targets[:, None]
    scales = np.abs(rows).max(axis=0, initial=0.0)
    scales[scales == 0.0] = 1.0
    rows = rows / scales
    best, best_error = np.zeros(count), 1.0
    # Small sets first, and in order: a larger one must earn its place.
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            columns = rows[:, chosen]
            solved, _, rank, _ = np.linalg.lstsq(columns, np.ones(len(rows)), rcond=None)
            if rank < size or (solved < 0.0).any():
                continue
            error = float(np.mean((columns @ solved - 1.0) ** 2))
            if error < best_error - NOTHING:
                best, best_error = np.zeros(count), error
                best[list(chosen)] = solved
    coefficients: Matrix = best / scales
    return coefficients

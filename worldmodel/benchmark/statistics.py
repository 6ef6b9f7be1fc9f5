"""Means over contexts with intervals that respect episodes, and paired differences of two reports."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
DRAWS = 500
LEVEL = (0.025, 0.975)


def resamples(episodes: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Rows of DRAWS bootstrap samples: episodes are drawn with replacement, each with all its contexts.

    Contexts of one episode are much alike, so drawing single contexts would promise too much. `episodes`: int [N], the
    episode of every context.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(episodes == e) for e in np.unique(episodes)]
    return [np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]) for _ in range(DRAWS)]


def interval(
    statistic: Callable[[npt.NDArray[np.int64]], Array], episodes: npt.NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """A statistic of all rows, [H], and its 95% bootstrap interval, [H] each."""
    values = np.array([statistic(rows) for rows in resamples(episodes)])
    low, high = (_quantile(values, q) for q in LEVEL)
    return statistic(np.arange(len(episodes))), low, high


def jackknife(
    statistic: Callable[[npt.NDArray[np.int64]], Array], episodes: npt.NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """The same for distances between sets, which a bootstrap, where rows occur twice, would overstate.

    Each episode is left out in turn; the interval is 1.96 standard errors of the jackknife to each side, and unknown
    for one episode.
    """
    mean, names = statistic(np.arange(len(episodes))), np.unique(episodes)
    if len(names) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    left_out = np.array([statistic(np.flatnonzero(episodes != e)) for e in names])
    error = np.sqrt((len(names) - 1) * left_out.var(0))
    return mean, np.maximum(mean - 1.96 * error, 0), mean + 1.96 * error


def mean_over(values: Array) -> Callable[[npt.NDArray[np.int64]], Array]:
    """The mean of the chosen rows of [N, H], of those that are known."""
    known, filled = ~np.isnan(values), np.nan_to_num(values)

    def statistic(rows: npt.NDArray[np.int64]) -> Array:
        return _divide(filled[rows].sum(0), known[rows].sum(0))

    return statistic


def ratio_over(numerator: Array, denominator: Array) -> Callable[[npt.NDArray[np.int64]], Array]:
    """The sum of the one by the sum of the other over the chosen rows of [N, H], of those that are known."""
    top, bottom = np.nan_to_num(numerator), np.nan_to_num(denominator)

    def statistic(rows: npt.NDArray[np.int64]) -> Array:
        return _divide(top[rows].sum(0), bottom[rows].sum(0))

    return statistic


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)


def _quantile(values: Array, q: float) -> Array:
    """Of each column, of the rows that are known there; nan where none is."""
    result = np.full(values.shape[1], np.nan)
    some = ~np.isnan(values).all(0)
    if some.any():
        result[some] = np.nanquantile(values[:, some], q, axis=0)
    return result

"""Means over contexts with intervals that respect episodes, and paired differences of two reports."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worldmodel.errors import require

Array = npt.NDArray[np.floating]
Statistic = Callable[[npt.NDArray[np.int64]], Array]
"""Chosen rows -> a number a horizon, [H]."""
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


def interval(statistic: Statistic, episodes: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """A statistic of all rows, [H], and its 95% bootstrap interval, [H] each; unknown for one episode.

    With few episodes a plain bootstrap promises too much, so its deviations are widened as Student's t asks.
    """
    mean, number = statistic(np.arange(len(episodes))), len(np.unique(episodes))
    if number < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    values = np.array([statistic(rows) for rows in resamples(episodes)])
    low, high = (mean + _wider(number) * (_quantile(values, q) - mean) for q in LEVEL)
    return mean, low, high


def _wider(number: int) -> float:
    """By how much an interval from `number` episodes is wider than one from very many with the same spread."""
    student = require("scipy.stats", "metrics").t
    return float(student.ppf(LEVEL[1], number - 1) / student.ppf(LEVEL[1], 1e9) * (number / (number - 1)) ** 0.5)


def jackknife(statistic: Statistic, episodes: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """The same for distances between sets, which a bootstrap, where rows occur twice, would overstate.

    Each episode is left out in turn; the interval is that of Student's t, and unknown for one episode.
    """
    mean, names = statistic(np.arange(len(episodes))), np.unique(episodes)
    if len(names) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    left_out = np.array([statistic(np.flatnonzero(episodes != e)) for e in names])
    error = np.sqrt((len(names) - 1) * left_out.var(0))
    reach = float(require("scipy.stats", "metrics").t.ppf(LEVEL[1], len(names) - 1)) * error
    return mean, mean - reach, mean + reach


def mean_over(values: Array) -> Statistic:
    """The mean of the chosen rows of [N, H], of those that are known."""
    known, filled = ~np.isnan(values), np.nan_to_num(values)

    def statistic(rows: npt.NDArray[np.int64]) -> Array:
        return _divide(filled[rows].sum(0), known[rows].sum(0))

    return statistic


def ratio_over(numerator: Array, denominator: Array) -> Statistic:
    """The sum of the one by the sum of the other over the chosen rows of [N, H], of those known in both."""
    known = ~(np.isnan(numerator) | np.isnan(denominator))
    top, bottom = np.where(known, numerator, 0), np.where(known, denominator, 0)

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

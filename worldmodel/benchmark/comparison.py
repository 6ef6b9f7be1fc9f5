"""Two predictors on the same contexts: which is better where, and is it certain?"""

from __future__ import annotations

import numpy as np

from worldmodel.benchmark.measures import METRICS
from worldmodel.benchmark.running import LOOKED_AT
from worldmodel.benchmark.statistics import interval, mean_over
from worldmodel.errors import UserError
from worldmodel.evaluation import Result

SHARED = ("protocol", "store", "seed", "contexts", "horizons")


def compare(a: Result, b: Result, name_a: str, name_b: str) -> Result:
    """Differences of predictor `name_a` of report `a` less `name_b` of report `b`, by metric and horizon.

    Each: {"difference", "low", "high", "better"}; the interval is a 95% bootstrap over episodes of the differences
    context by context, and "better" is "a" or "b" where it leaves out zero, else None. Only what is measured context by
    context can be paired: not drift, FID, FVD, liveliness and restlessness.

    Raises `UserError` when the reports are of different contexts, or have no such predictor.
    """
    differ = [name for name in SHARED if a[name] != b[name]]
    if differ:
        raise UserError(
            f"The two reports differ in {', '.join(differ)}: run both with the same store, protocol, contexts and seed."
        )
    first, second = _predictor(a, name_a), _predictor(b, name_b)
    episodes = np.array([episode for episode, _ in a["contexts"]])
    result: Result = {}
    for name, metric in METRICS.items():
        if name not in first["contexts"] or name not in second["contexts"] or not metric.better:
            continue
        values = [np.array(p["contexts"][name], float) for p in (first, second)]
        mean, low, high = interval(mean_over(values[0] - values[1]), episodes)
        result[name] = {
            str(h): {
                "difference": round(float(mean[i]), 5),
                "low": round(float(low[i]), 5),
                "high": round(float(high[i]), 5),
                "better": _better(metric.better, low[i], high[i]),
            }
            for i, h in enumerate(a["horizons"])
            if not np.isnan(mean[i])
        }
    return result


def _predictor(report: Result, name: str) -> Result:
    if name not in report["predictors"]:
        raise UserError(f'There is no "{name}" in that report: it has {", ".join(report["predictors"])}.')
    found: Result = report["predictors"][name]
    return found


def _better(direction: int, low: float, high: float) -> str | None:
    if low <= 0 <= high:
        return None
    return "a" if (low > 0) == (direction > 0) else "b"


def rows(comparison: Result) -> list[list[str]]:
    """For a table: metric, horizon, difference with its interval, and who is better."""
    return [
        [name, h, f"{d['difference']:+.3f}", f"[{d['low']:+.3f}, {d['high']:+.3f}]", d["better"] or "–"]
        for name, by_horizon in comparison.items()
        for h, d in by_horizon.items()
        if int(h) in LOOKED_AT
    ]

"""Two predictors on the same contexts: which is better where, and is it certain?"""

from __future__ import annotations

import numpy as np

from worldmodel.benchmark.measures import METRICS
from worldmodel.benchmark.running import LOOKED_AT
from worldmodel.benchmark.summary import by_horizon
from worldmodel.errors import UserError
from worldmodel.metrics import Result

SHARED = ("protocol", "seed", "contexts", "data")
ALIKE = {"bits_per_code": "tokenizer", "action_fidelity": "judge"}
"""What two numbers of one metric must be known to have in common; "best" ones the number of samples."""


def compare(a: Result, b: Result, name_a: str, name_b: str) -> Result:
    """Differences of predictor `name_a` of report `a` less `name_b` of report `b`, by metric and horizon.

    Each: {"difference", "low", "high", "better"}; the interval is a 95% bootstrap over episodes of the differences
    context by context, and "better" is "a" or "b" where it leaves out zero, else None. Only what is measured context by
    context can be paired, and only that of which more, or less, is better can be judged: not drift, FID, FVD
    and consistency, nor liveliness, restlessness, reward_bias and alive. Bits are of one tokenizer's codes, actions
    are found by one judge, and the best is of as many: where these differ or are unknown, the metric is left out.

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
        alike = "samples" if name.endswith("_best") else ALIKE.get(name)
        if alike and (alike not in first or first[alike] != second.get(alike)):
            continue
        values = [np.array(p["contexts"][name], float) for p in (first, second)]
        differences = by_horizon(a["horizons"], values[0] - values[1], episodes)
        result[name] = {
            h: {
                "difference": at["mean"],
                "low": at["low"],
                "high": at["high"],
                "better": _better(metric.better, at["low"], at["high"]),
            }
            for h, at in differences.items()
        }
    return result


def _predictor(report: Result, name: str) -> Result:
    if name not in report["predictors"]:
        raise UserError(f'There is no "{name}" in that report: it has {", ".join(report["predictors"])}.')
    found: Result = report["predictors"][name]
    return found


def _better(direction: int, low: float | None, high: float | None) -> str | None:
    if low is None or high is None or low <= 0 <= high:
        return None
    return "a" if (low > 0) == (direction > 0) else "b"


def rows(comparison: Result) -> list[list[str]]:
    """For a table: metric, horizon, difference with its interval, and who is better."""
    return [
        [
            name,
            h,
            f"{d['difference']:+.3f}",
            "–" if d["low"] is None else f"[{d['low']:+.3f}, {d['high']:+.3f}]",
            d["better"] or "–",
        ]
        for name, differences in comparison.items()
        for h, d in differences.items()
        if int(h) in LOOKED_AT
    ]

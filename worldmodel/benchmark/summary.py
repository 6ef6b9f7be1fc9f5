"""Raw values -> the numbers of a report: metrics by horizon with intervals, and values by context for comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worldmodel.benchmark.drift import WINDOW, Drift, Features
from worldmodel.benchmark.loops import Loop
from worldmodel.benchmark.measures import METRICS, Limits, best_of
from worldmodel.benchmark.protocols import Context, Protocol
from worldmodel.benchmark.running import LOOKED_AT, Arrays
from worldmodel.benchmark.statistics import Array, Statistic, interval, jackknife, mean_over, ratio_over
from worldmodel.benchmark.weights import feature_distance
from worldmodel.metrics import Result

MEANS = ("psnr", "ssim", "ms_ssim", "lpips", "action_fidelity")  # averaged over samples, then over contexts


class Summary:
    """Turns every predictor's raw values into its part of report.json."""

    def __init__(self, contexts: list[Context], protocol: Protocol, real: Features, fid: Features | None) -> None:
        """`real`: the drift features of all frames of the store, [N, D]; `fid`: Inception's, if they are measured."""
        self.protocol, self.fid = protocol, fid
        self.horizons = protocol.horizons
        self.episodes = np.array([c.episode for c in contexts])
        self.drift = Drift(real)
        self.paid, self.alive = true_outcomes(contexts, protocol)

    def __call__(self, raw: Arrays, real_clips: npt.NDArray[np.floating] | None) -> Result:
        """
        - metrics: by name and horizon, {"mean", "low", "high", "contexts"}: the 95% interval over episodes, null where
          it is not known, and how many contexts are.
        - contexts: by name, [contexts, horizons], for paired comparisons.
        - calibration: of the summed rewards, if it predicts any.
        """
        at = np.array(self.horizons) - 1
        by_context: dict[str, Array] = {}
        for name in MEANS:
            if name in raw:
                by_context[name] = raw[name].mean(1)
                if f"{name}_best" in METRICS and raw[name].shape[1] > 1:
                    by_context[f"{name}_best"] = best_of(name, raw[name])
        if "bits_per_code" in raw:
            by_context["bits_per_code"] = raw["bits_per_code"]
        sums = None
        if "terminated" in raw:
            over = np.maximum.accumulate(raw["terminated"], 2)  # [C, S, H]
            by_context["alive"] = np.where(np.isnan(self.alive), np.nan, 1 - over.mean(1))[:, at]
        if "rewards" in raw:
            rewards = raw["rewards"]
            if "terminated" in raw:  # the step that ends a dream pays; those after it do not
                rewards = np.where(raw["terminated"].cumsum(2) - raw["terminated"] > 0, 0, rewards)
            sums = rewards.cumsum(2, np.float64)
            error = sums - self.paid[:, None]
            by_context["reward_error"], by_context["reward_bias"] = (x.mean(1)[:, at] for x in (np.abs(error), error))
        metrics = {
            name: by_horizon(self.horizons, values, self.episodes, METRICS[name].limits)
            for name, values in by_context.items()
        }
        moving, still = raw["change_moving"], raw["change_still"]
        metrics["liveliness"] = self._ratio("liveliness", moving, raw["expected_moving"])
        metrics["restlessness"] = self._ratio("restlessness", still, np.where(np.isnan(still), np.nan, 1))
        metrics["drift"] = self._drifts(raw["features"])
        if "fid" in raw and self.fid is not None:
            metrics["fid"] = self._fids(raw["fid"], self.fid)
        result: Result = {
            "samples": raw["features"].shape[1],
            "metrics": {name: values for name, values in metrics.items() if values},
            "contexts": {name: _rounded(values) for name, values in by_context.items()},
        }
        if "clip" in raw and real_clips is not None:
            distances = [
                feature_distance(complete(clips), complete(real_clips)) for clips in raw["clip"].swapaxes(0, 1)
            ]
            result["fvd"] = plain(np.mean(distances))
        if sums is not None:
            result["calibration"] = calibration(sums, self.paid)
        return result

    def truth(self) -> Result:
        """What the truth has besides what is measured of its frames: how long it lives."""
        at_horizons = self.alive[:, np.array(self.horizons) - 1]
        alive = by_horizon(self.horizons, at_horizons, self.episodes, METRICS["alive"].limits)
        return {"alive": alive} if alive else {}

    def _ratio(self, name: str, top: npt.NDArray[np.floating], bottom: npt.NDArray[np.floating]) -> Result:
        """Of sums over contexts and samples, [C, S, h] each."""
        sums = [np.where(np.isnan(x).all(1), np.nan, np.nansum(x, 1)) for x in (top, bottom)]
        limits = METRICS[name].limits
        return _results(self.horizons, ratio_over(*sums), ~np.isnan(sums[0]), self.episodes, interval, limits)

    def _drifts(self, features: npt.NDArray[np.floating]) -> Result:
        """Of the frames h - 4 to h, at each tenth horizon after the first twenty, averaged over samples.

        Each sample by itself: the distance of a set depends on its size, and all sets are to be of one size.
        """
        measured = [h for h in self.horizons if h >= WINDOW and (h <= 20 or h % 10 == 0)]

        def of_window(window: Features) -> float:
            return self.drift(window) if len(window) > window.shape[1] else math.nan

        def statistic(rows: npt.NDArray[np.int64]) -> Array:
            windows = [[complete(s[rows, h - WINDOW : h]) for s in features.swapaxes(0, 1)] for h in measured]
            return np.array([np.mean([of_window(w) for w in samples]) for samples in windows])

        at = np.array(measured, int) - 1
        known, limits = ~np.isnan(features[:, 0, at, 0]), METRICS["drift"].limits
        return _results(measured, statistic, known, self.episodes, jackknife, limits)

    def _fids(self, features: npt.NDArray[np.floating], real: Features) -> Result:
        looked_at = [h for h in LOOKED_AT if h <= self.protocol.imagined]
        samples = features.swapaxes(0, 1)  # [S, C, looked at, D]
        distances = [
            np.mean([feature_distance(complete(s[:, i]), real) for s in samples]) for i in range(len(looked_at))
        ]
        known = (~np.isnan(features[:, 0, :, 0])).sum(0)
        unknown = np.full(len(looked_at), np.nan)  # an interval would take more frames, and hours
        return _entries(looked_at, np.array(distances), unknown, unknown, known)


def by_horizon(
    horizons: list[int],
    values: Array,
    episodes: npt.NDArray[np.int64],
    limits: Limits = (None, None),
) -> Result:
    """Means over contexts, of values by context [C, h]; intervals stay within the limits of what can be."""
    return _results(horizons, mean_over(values), ~np.isnan(values), episodes, interval, limits)


def _results(
    horizons: list[int],
    statistic: Statistic,
    known: npt.NDArray[np.bool_],
    episodes: npt.NDArray[np.int64],
    bounds: Callable[[Statistic, npt.NDArray[np.int64]], tuple[Array, Array, Array]],
    limits: Limits = (None, None),
) -> Result:
    """`known`: of which contexts the statistic is, [C, h]; an interval takes contexts of two episodes at least."""
    if not horizons or not known.any():
        return {}
    mean, low, high = bounds(statistic, episodes)
    certain = np.array([len(np.unique(episodes[column])) > 1 for column in known.T])
    low, high = (np.where(certain, np.clip(bound, *limits), np.nan) for bound in (low, high))
    return _entries(horizons, mean, low, high, known.sum(0))


def _entries(horizons: list[int], mean: Array, low: Array, high: Array, contexts: npt.NDArray[np.integer]) -> Result:
    """What is known, by horizon."""
    rows = zip(horizons, mean.tolist(), low.tolist(), high.tolist(), contexts.tolist(), strict=True)
    return {
        str(h): {"mean": plain(m), "low": plain(lo), "high": plain(hi), "contexts": n}
        for h, m, lo, hi, n in rows
        if not math.isnan(m)
    }


def complete(features: npt.NDArray[np.floating]) -> Features:
    """[..., D] -> [N, D], without the rows that are not known."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    return flat[~np.isnan(flat).any(1)]


def true_outcomes(contexts: list[Context], protocol: Protocol) -> tuple[Array, Array]:
    """True rewards summed up to each horizon, and whether the episode still runs, [contexts, imagined] each.

    nan where that is not known: after the recording, unless it shows the end.
    """
    paid, alive = (np.full((len(contexts), protocol.imagined), np.nan) for _ in range(2))
    for row, context in enumerate(contexts):
        known = context.known
        paid[row, :known] = context.rewards.numpy().cumsum()
        alive[row, :known] = 1 - context.terminated.numpy().cumsum()
        if known and context.terminated[-1]:
            paid[row, known:], alive[row, known:] = paid[row, known - 1], 0
    return paid, alive


def calibration(imagined: npt.NDArray[np.floating], paid: Array) -> Result:
    """Rewards summed up to one horizon, the largest that nine in ten contexts know; [C, S, H] and [C, H].

    The contexts are sorted by what was imagined, in five groups: what was imagined, and what was paid. The slope is of
    the true sums on the imagined ones: 1 where they can be taken at their word, 0 where they say nothing.
    """
    known = (~np.isnan(paid)).mean(0)
    horizon = int(np.flatnonzero(known >= min(0.9, known[0]))[-1])
    rows = ~np.isnan(paid[:, horizon])
    said, true = imagined[rows, :, horizon].mean(1), paid[rows, horizon]
    groups = [part for part in np.array_split(said.argsort(), 5) if len(part)]
    return {
        "horizon": horizon + 1,
        "groups": [
            {"imagined": plain(said[g].mean()), "true": plain(true[g].mean()), "contexts": len(g)} for g in groups
        ],
        "slope": plain(np.cov(said, true)[0, 1] / said.var(ddof=1)) if min(said.var(), true.var()) > 0 else None,
    }


def summarise_loops(raw: Arrays, loops: list[Loop]) -> Result:
    """Consistency by horizon, that of the loop's end: how much closer to the first view than at its turn.

    (turned - returned) / what the engine turned away by; all three are given too, in grey levels.
    """
    result: Result = {}
    for turn in sorted({loop.turn for loop in loops}):
        chosen = np.array([loop.turn == turn for loop in loops])
        episodes = np.array([loop.episode for loop in loops])[chosen]
        returned, turned, engine = (raw[f"loops.{name}"][chosen, None] for name in ("returned", "turned", "engine"))
        statistic = ratio_over(turned - returned, engine)
        entries = _results([2 * turn], statistic, np.ones((len(episodes), 1), bool), episodes, interval)
        details = {"returned": plain(returned.mean()), "turned": plain(turned.mean()), "engine": plain(engine.mean())}
        result |= {h: {**at, **details} for h, at in entries.items()}
    return result


def plain(value: float | np.floating) -> float | None:
    """JSON has no nan."""
    return round(float(value), 5) if math.isfinite(value) else None


def _rounded(values: Array) -> list[list[float | None]]:
    return [[None if math.isnan(v) else round(v, 4) for v in row] for row in values.tolist()]

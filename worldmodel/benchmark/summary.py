"""Raw values -> the numbers of a report: metrics by horizon with intervals, and values by context for comparisons."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from worldmodel.benchmark.drift import WINDOW, Drift
from worldmodel.benchmark.loops import Loop
from worldmodel.benchmark.measures import METRICS, best_of
from worldmodel.benchmark.protocols import Context, Protocol
from worldmodel.benchmark.running import LOOKED_AT, Arrays
from worldmodel.benchmark.statistics import Array, interval, jackknife, mean_over, ratio_over
from worldmodel.benchmark.weights import feature_distance
from worldmodel.evaluation import Result

MEANS = ("psnr", "ssim", "ms_ssim", "lpips", "action_fidelity")  # averaged over samples, then over contexts


def summarise(raw: Arrays, real: Arrays, contexts: list[Context], protocol: Protocol, drift: Drift) -> Result:
    """One predictor's part of report.json, from its raw values and those of the truth.

    - metrics: by name and horizon, {"mean", "low", "high"}, the 95% interval over episodes.
    - contexts: by name, [contexts, horizons], for paired comparisons.
    - calibration: of the rewards summed over all known steps, if it predicts any.
    """
    horizons, episodes = protocol.horizons, np.array([c.episode for c in contexts])
    per_context: dict[str, Array] = {}
    for name in MEANS:
        if name in raw:
            per_context[name] = raw[name].mean(1)
            if f"{name}_best" in METRICS and raw[name].shape[1] > 1:
                per_context[f"{name}_best"] = best_of(name, raw[name])
    if "bits_per_code" in raw:
        per_context["bits_per_code"] = raw["bits_per_code"]
    at = np.array(horizons) - 1
    paid, sums = _reward_sums(contexts, protocol), None
    if "rewards" in raw:
        sums = raw["rewards"].cumsum(2)
        error = sums - paid[:, None]
        per_context["reward_error"], per_context["reward_bias"] = np.abs(error).mean(1)[:, at], error.mean(1)[:, at]
    if "terminated" in raw:
        per_context["alive"] = 1 - np.maximum.accumulate(raw["terminated"], axis=2).mean(1)[:, at]
    metrics = {name: _by_horizon(horizons, *interval(mean_over(v), episodes)) for name, v in per_context.items()}
    for name, top, bottom in (
        ("liveliness", raw["change_moving"], raw["expected_moving"]),
        ("restlessness", raw["change_still"], (~np.isnan(raw["change_still"])).astype(float)),
    ):
        statistic = ratio_over(np.nansum(top, 1), np.nansum(bottom, 1))
        metrics[name] = _by_horizon(horizons, *interval(statistic, episodes))
    metrics["drift"] = _drift(raw["features"], drift, horizons, episodes)
    if "fid" in raw:
        looked_at = [h for h in LOOKED_AT if h <= protocol.imagined]
        reference = _complete(real["fid"])
        distances = [feature_distance(_complete(raw["fid"][:, :, i]), reference) for i in range(len(looked_at))]
        metrics["fid"] = _by_horizon(looked_at, np.array(distances))
    result: Result = {
        "samples": raw["features"].shape[1],
        "metrics": {name: values for name, values in metrics.items() if values},
        "contexts": {name: _rounded(values) for name, values in per_context.items()},
    }
    if "clip" in raw:
        result["fvd"] = _plain(feature_distance(_complete(raw["clip"]), _complete(real["clip"])))
    if sums is not None:
        result["calibration"] = _calibration(sums, paid)
    return result


def _drift(
    features: npt.NDArray[np.floating], drift: Drift, horizons: list[int], episodes: npt.NDArray[np.int64]
) -> Result:
    """Of the frames h - 4 to h of all samples together, at each tenth horizon after the first twenty."""
    measured = [h for h in horizons if h >= WINDOW and (h <= 20 or h % 10 == 0)]

    def statistic(rows: npt.NDArray[np.int64]) -> Array:
        windows = [_complete(features[rows, :, h - WINDOW : h]) for h in measured]
        return np.array([drift(w) if len(w) > w.shape[1] else np.nan for w in windows])

    return _by_horizon(measured, *jackknife(statistic, episodes)) if measured else {}


def _complete(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """[..., D] -> [N, D], without the rows that are not known."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    return flat[~np.isnan(flat).any(1)]


def _reward_sums(contexts: list[Context], protocol: Protocol) -> Array:
    """True rewards summed up to each horizon, [contexts, imagined]; nan where they are not known."""
    paid = np.full((len(contexts), protocol.imagined), np.nan)
    for row, context in zip(paid, contexts, strict=True):
        row[: context.known] = context.rewards.numpy().cumsum()
    return paid


def _calibration(imagined: Array, paid: Array) -> Result:
    """Contexts sorted by what was imagined over all known steps, in five groups: what was imagined, and what was paid.

    The slope is of the true sums on the imagined ones: 1 where they can be taken at their word, 0 where they say
    nothing.
    """
    last = (~np.isnan(paid)).sum(1) - 1
    rows = np.arange(len(paid))
    said, true = imagined[rows, :, last].mean(1), paid[rows, last]
    groups = [part for part in np.array_split(said.argsort(), 5) if len(part)]
    return {
        "groups": [
            {"imagined": _plain(said[g].mean()), "true": _plain(true[g].mean()), "contexts": len(g)} for g in groups
        ],
        "slope": _plain(np.cov(said, true)[0, 1] / said.var(ddof=1)) if len(said) > 1 and said.var() > 0 else None,
    }


def _by_horizon(horizons: list[int], mean: Array, low: Array | None = None, high: Array | None = None) -> Result:
    """What is known of a metric, by horizon; an interval is null where it was not measured."""
    bounds = [np.full(len(mean), np.nan) if b is None else b for b in (low, high)]
    rows = zip(horizons, mean.tolist(), bounds[0].tolist(), bounds[1].tolist(), strict=True)
    return {
        str(h): {"mean": _plain(m), "low": _plain(lo), "high": _plain(hi)} for h, m, lo, hi in rows if not math.isnan(m)
    }


def summarise_loops(raw: dict[str, Array], loops: list[Loop]) -> Result:
    """Consistency by horizon, that of the loop's end: how much closer to the first view than at its turn.

    (turned - returned) / what the engine turned away by; all three are given too, in grey levels.
    """
    result: Result = {}
    for turn in sorted({loop.turn for loop in loops}):
        chosen = np.array([loop.turn == turn for loop in loops])
        episodes = np.array([loop.episode for loop in loops])[chosen]
        returned, turned, engine = (raw[name][chosen, None] for name in ("returned", "turned", "engine"))
        entry = _by_horizon([2 * turn], *interval(ratio_over(turned - returned, engine), episodes))
        details = {"returned": _plain(returned.mean()), "turned": _plain(turned.mean()), "loops": int(chosen.sum())}
        result |= {h: {**values, **details, "engine": _plain(engine.mean())} for h, values in entry.items()}
    return result


def _plain(value: float) -> float | None:
    return round(float(value), 5) if math.isfinite(value) else None


def _rounded(values: Array) -> list[list[float | None]]:
    return [[None if math.isnan(v) else round(v, 4) for v in row] for row in values.tolist()]

"""Curves of a benchmark report: each metric against the horizon, with the intervals as bands."""

from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np

from worldmodel.benchmark.running import Truth
from worldmodel.errors import require
from worldmodel.files import write_bytes
from worldmodel.metrics import Result

TRIVIAL = ("psnr", "ssim", "ms_ssim", "lpips")  # for the truth itself
DRAWN = ("psnr", "ssim", "ms_ssim", "lpips", "bits_per_code", "action_fidelity", "drift", "liveliness", "reward_error")


def draw_curves(report: Result, path: Path) -> None:
    """One panel a metric that was measured, one line a predictor; horizons on a logarithmic axis."""
    predictors = report["predictors"]
    drawn = [name for name in DRAWN if any(name in values["metrics"] for values in predictors.values())]
    columns = 3
    rows = -(-len(drawn) // columns)
    figure = require("matplotlib.figure", "metrics").Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
    lines = {}
    for panel, metric in enumerate(drawn, 1):
        axes = figure.add_subplot(rows, columns, panel)
        for colour, (name, values) in enumerate(predictors.items()):
            if metric not in values["metrics"] or (name == Truth.name and metric in TRIVIAL):
                continue
            horizons, bands = _series(values["metrics"][metric])
            style = "--" if "no actions" in name else ":" if name.startswith(("truth", "reconstruction")) else "-"
            mean, low, high = bands
            lines[name] = axes.plot(horizons, mean, style, color=f"C{colour}", label=name)[0]
            axes.fill_between(horizons, low, high, color=f"C{colour}", alpha=0.12, linewidth=0)
        last = max(int(h) for values in predictors.values() for h in values["metrics"].get(metric, ()))
        ticks = [h for h in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if h <= last]
        axes.set(xscale="log", title=metric, xlabel="steps ahead")
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3, frameon=False)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=80)
    write_bytes(path, content.getvalue())


def _series(by_horizon: Result) -> tuple[list[int], np.ndarray]:
    """Horizons, and mean, low and high at each, [3, horizons]; beyond 20 a dozen of them a decade, for the eye."""
    points = {int(h): at for h, at in by_horizon.items()}
    spread = np.geomspace(20, 10_000, 33).round()
    chosen = sorted(h for h in points if h <= 20) + [
        max(inside) for a, b in pairwise(spread) if (inside := [h for h in points if a < h <= b])
    ]
    values = [[np.nan if points[h][k] is None else points[h][k] for h in chosen] for k in ("mean", "low", "high")]
    return chosen, np.array(values)

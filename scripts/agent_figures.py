"""Pictures of how an agent learned: its returns in dreams and in the real world, and whether one tells the other."""

from io import BytesIO
from pathlib import Path
from typing import Any

from worldmodel.errors import require
from worldmodel.files import write_bytes

COLOURS = {"dream": "tab:blue", "real": "tab:orange"}


def draw_learning(record: list[dict[str, Any]], path: Path) -> None:
    """Left, returns against steps with 95% intervals; right, for each evaluation, the dream's against the real one.

    `record`: one dict an evaluation: "steps", and of "dream" and "real" those that were measured, as `Score`s.
    """
    figure = require("matplotlib.figure", "metrics").Figure(figsize=(10, 4), layout="constrained")
    curves, scatter = figure.subplots(1, 2)
    for where, colour in COLOURS.items():
        entries = [entry for entry in record if where in entry]
        if not entries:
            continue
        steps = [entry["steps"] for entry in entries]
        lows, highs = zip(*(entry[where]["ci95"] for entry in entries), strict=True)
        curves.plot(steps, [entry[where]["mean"] for entry in entries], color=colour, marker=".", label=where)
        curves.fill_between(steps, lows, highs, color=colour, alpha=0.2)
    curves.set(xlabel="steps of experience", ylabel="return of an episode", title="Learning")
    curves.legend()
    both = [entry for entry in record if {"dream", "real"} <= entry.keys()]
    dreamed, real = [entry["dream"]["mean"] for entry in both], [entry["real"]["mean"] for entry in both]
    scatter.scatter(dreamed, real, c=[entry["steps"] for entry in both])
    scatter.set(xlabel="return in dreams", ylabel="return in the real world", title="Do dreams tell? (darker: earlier)")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_bytes(path, content.getvalue())

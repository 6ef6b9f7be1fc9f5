"""`worldmodel compare`: two reports of `worldmodel benchmark` -> which is better where."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from scripts.output import room_for_file
from worldmodel.benchmark.comparison import SHARED, compare, rows
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.metrics import Result


@dataclass
class Args:
    """Compare two benchmarked models on the same contexts: differences with 95% paired bootstrap intervals.

    "better" is empty where the interval holds zero. Only what is measured context by context, and of which more,
    or less, is better, is compared: not drift, FID, FVD and consistency, nor liveliness, restlessness,
    reward_bias and alive.
    """

    a: Annotated[Path, tyro.conf.Positional]
    """A report.json of `worldmodel benchmark`."""
    b: Annotated[Path, tyro.conf.Positional]
    """Another one, or the same."""
    predictor_a: str | None = None
    """Which predictor of A; its first if not given."""
    predictor_b: str | None = None
    """Which predictor of B; its first if not given."""
    out: Path | None = None
    """Write all differences here, as JSON, at every horizon."""


def main(args: Args) -> None:
    a, b = _read(args.a), _read(args.b)
    name_a, name_b = args.predictor_a or next(iter(a["predictors"])), args.predictor_b or next(iter(b["predictors"]))
    if args.out is not None:
        room_for_file(args.out)
    differences = compare(a, b, name_a, name_b)
    table = Table(
        "metric",
        "steps ahead",
        "A - B",
        "95% interval",
        "better",
        title=f"A: {name_a} ({args.a})\nB: {name_b} ({args.b})",
    )
    for row in rows(differences):
        table.add_row(*row)
    Console().print(table)
    if args.out is not None:
        write_text(args.out, json.dumps({"a": name_a, "b": name_b, "differences": differences}, indent=1) + "\n")
        print(f"All differences are in {args.out}.")


def _read(path: Path) -> Result:
    try:
        report: Result = json.loads(path.read_text())
        contexts, _ = np.shape(report["contexts"])
        values = [v for predictor in report["predictors"].values() for v in predictor["contexts"].values()]
        if set(SHARED) - report.keys() or {np.shape(v) for v in values} != {(contexts, len(report["horizons"]))}:
            raise ValueError("not all of a report")
        return report
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is not a report of `worldmodel benchmark`, or an older or damaged one: make it anew."
        ) from error

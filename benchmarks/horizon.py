"""The results of record of `worldmodel benchmark`: every bundled model, every protocol, its world's held-out episodes.

    python benchmarks/horizon.py

`horizon.json` keeps the metrics at the horizons that people look at, `horizon.md` shows all that it holds, with the
command of each table; the full reports, curves, pictures and films stay in the folder of the runs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from scripts import benchmark
from scripts.command import run_script
from scripts.curves import draw_curves
from scripts.output import read_record, room_for_file
from worldmodel.benchmark.comparison import ALIKE
from worldmodel.benchmark.report import markdown
from worldmodel.benchmark.running import LOOKED_AT
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.metrics import Result

ProtocolName = Literal["paper", "teco", "long"]
WorldName = Literal["arena", "explore", "doom"]
WORLDS: dict[WorldName, tuple[str, tuple[ProtocolName, ...]]] = {
    "arena": ("dmlab-seekavoid", get_args(ProtocolName)),
    "explore": ("dmlab-explore", get_args(ProtocolName)),
    "doom": ("doom-take-cover", ("paper", "long")),  # few games have the 300 frames of teco
}
"""Stores are called STORES/NAME_test, NAME_train and, where there are turns there and back, NAME_loops."""
SIZES: dict[ProtocolName, tuple[int, int]] = {"paper": (48, 4), "teco": (12, 1), "long": (12, 1)}
"""Contexts and samples: long dreams take long."""


@dataclass
class Args:
    stores: Path = Path("stores")
    runs: Path = Path("runs/horizon")
    """Folder of the full reports; where one is there already, it is taken."""
    worlds: tuple[WorldName, ...] = get_args(WorldName)
    protocols: tuple[ProtocolName, ...] = get_args(ProtocolName)
    before: Path | None = None
    """An earlier horizon.json; what its models reached on the same contexts is shown beside, as "NAME, before": what it
    calls so itself, if it does."""
    out: Path = Path(__file__).parent


def main(args: Args) -> None:
    if args.before and not args.before.is_file():
        raise UserError(f"There is no earlier record {args.before}.")
    before: dict[str, Result] = read_record(args.before, {}) if args.before else {}
    record = args.out / "horizon.json"
    room_for_file(record)
    results: dict[str, Result] = read_record(record, {})
    for world in args.worlds:
        for protocol in args.protocols:
            if protocol not in WORLDS[world][1]:
                continue
            folder = args.runs / f"{world}-{protocol}"
            if not (folder / "report.json").exists():
                run(args, world, protocol, folder)
            report = json.loads((folder / "report.json").read_text())
            if folder.name in before:
                report = beside(report, before[folder.name], WORLDS[world][0])
                draw_curves(report, folder / "curves_before_and_after.png")
            results[folder.name] = condensed(report)
            write_text(record, json.dumps(results, indent=1) + "\n")
    write_text(args.out / "horizon.md", page(results))


def page(results: dict[str, Result]) -> str:
    """`horizon.md`, of what `horizon.json` holds."""
    parts = [markdown(report).replace("\n## ", "\n### ").replace("# ", "## ", 1) for report in results.values()]
    return "\n\n".join(["# How far can the dreams be trusted?", *parts])


def run(args: Args, world: WorldName, protocol: ProtocolName, folder: Path) -> None:
    loops = args.stores / f"{world}_loops"
    contexts, samples = SIZES[protocol]
    benchmark.main(
        benchmark.Args(
            store=str(args.stores / f"{world}_test"),
            out=folder,
            model=(WORLDS[world][0],),
            protocol=protocol,
            samples=samples,
            contexts=contexts,
            train_store=str(args.stores / f"{world}_train"),
            loops=str(loops) if loops.exists() and protocol == "paper" else None,
        )
    )


def beside(report: Result, earlier: Result, model: str) -> Result:
    """`report` with what an earlier `model` of the same name reached, where it did so on the same contexts.

    Without the metrics that cannot be compared, because its tokenizer, or the judge of its actions, was another.
    """
    if any(report[same] != earlier[same] for same in ("data", "protocol", "seed")):
        print(f"The earlier {report['protocol']['name']} of {report['store']} is of other contexts: left out.")
        return report
    predictors = {}
    for name, values in report["predictors"].items():
        predictors[name] = values
        former = name.replace(model, f"{model}, before", 1)
        old = earlier["predictors"].get(former, earlier["predictors"].get(name))
        if old and name.startswith(model):
            unlike = {metric for metric, same in ALIKE.items() if old.get(same) != values.get(same)}
            metrics = {metric: at for metric, at in old["metrics"].items() if metric not in unlike}
            predictors[former] = {**old, "metrics": metrics}
    return {**report, "predictors": predictors}


def condensed(report: Result) -> Result:
    """Without what each context gave, and at few horizons, but for turns there and back, which are few."""
    keep = {str(h) for h in LOOKED_AT}
    predictors = {
        name: {
            **{k: v for k, v in values.items() if k != "contexts"},
            "metrics": {
                metric: {h: at for h, at in by_horizon.items() if h in keep or metric == "consistency"}
                for metric, by_horizon in values["metrics"].items()
            },
        }
        for name, values in report["predictors"].items()
    }
    return {**{k: v for k, v in report.items() if k != "horizons"}, "predictors": predictors}


if __name__ == "__main__":
    run_script(main, Args)

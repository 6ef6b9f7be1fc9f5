"""The page of a report, for people: one table a metric, predictors by horizons."""

from typing import Any

from worldmodel.benchmark.measures import METRICS
from worldmodel.benchmark.running import LOOKED_AT
from worldmodel.metrics import Result


def markdown(report: Result) -> str:
    """The page of one report: a table a metric, predictors by horizons."""
    protocol, predictors = report["protocol"], report["predictors"]
    most = max(values["samples"] for values in predictors.values())
    samples = f", {most} samples each" if most > 1 else ""
    episodes = len({episode for episode, _ in report["contexts"]})
    parts = [
        f'# {report["store"]}, protocol "{protocol["name"]}": {protocol["given"]} frames given, '
        f"{protocol['imagined']} imagined",
        f"{len(report['contexts'])} contexts of {episodes} episodes{samples}; in brackets the 95% interval over "
        'episodes. "truth" is what each measure gives for the real frames, "reconstruction" for those drawn anew from '
        'their own codes: ceilings, not predictions. "No actions": they were withheld. A number in parentheses alone '
        "has no interval: it is of one episode.",
    ]
    for name, metric in METRICS.items():
        if name == "consistency":
            continue  # its horizons are its own
        found = {p: values["metrics"][name] for p, values in predictors.items() if name in values["metrics"]}
        if not found:
            continue
        some = {int(h) for values in found.values() for h in values}
        horizons = [h for h in LOOKED_AT if h in some] or sorted(some)
        direction = {1: "more is better", -1: "less is better", 0: "the truth's value is best"}[metric.better]
        parts.append(f"## {name}\n\n{metric.about[0].upper() + metric.about[1:]}; {direction}.")
        parts.append(
            table(
                ["predictor", *horizons],
                [[p, *(_cell(values.get(str(h)), metric.digits) for h in horizons)] for p, values in found.items()],
            )
        )
    for section in (_consistency, _clips, _calibrations):
        parts += section(predictors)
    missing = {**report["not_measured"], **report["skipped"]}
    if missing:
        parts.append("## Not measured\n\n" + "\n".join(f"- {name}: {why}" for name, why in missing.items()))
    parts.append(f"## Command\n\n```bash\n{report['command']}\n```")
    return "\n\n".join(parts) + "\n"


def _consistency(predictors: Result) -> list[str]:
    found = {p: v["metrics"]["consistency"] for p, v in predictors.items() if "consistency" in v["metrics"]}
    if not found:
        return []
    horizons = sorted({int(h) for values in found.values() for h in values})
    about = (
        "Look one way n steps and back: how much closer the last view is to the first than the view at the turn is, as "
        "a share of what the engine turns away by. In parentheses the mean absolute differences to the first view, in "
        "grey levels, at the turn and at the end. More is better, up to the truth's: that is below 1 where one still "
        "coasts as the turn begins."
    )
    rows = []
    for p, values in found.items():
        cells = [
            f"{_cell(at, 2)} ({at['turned']:.0f}, {at['returned']:.0f})" if (at := values.get(str(h))) else "–"
            for h in horizons
        ]
        rows.append([p, *cells])
    return [f"## consistency\n\n{about}", table(["predictor", *(f"{h // 2} there and back" for h in horizons)], rows)]


def _clips(predictors: Result) -> list[str]:
    found = {p: v["fvd"] for p, v in predictors.items() if "fvd" in v}
    if not found:
        return []
    rows = [[p, "–" if v is None else f"{v:.0f}"] for p, v in found.items()]
    about = (
        "Frechet video distance of whole clips, biased upwards by how few these are: no published value is like it; "
        "less is better."
    )
    return [f"## fvd\n\n{about}", table(["predictor", "FVD"], rows)]


def _calibrations(predictors: Result) -> list[str]:
    found = {p: v["calibration"] for p, v in predictors.items() if "calibration" in v}
    if not found:
        return []
    about = (
        "Summed rewards, contexts in five groups by what was imagined; each cell is imagined / true. Slope: of the "
        "true sums on the imagined ones; 1 is calibrated, 0 says nothing."
    )
    rows = []
    for p, c in found.items():
        cells = [f"{_number(g['imagined'])} / {_number(g['true'])}" for g in c["groups"]]
        rows.append([p, c["horizon"], *cells, *["–"] * (5 - len(cells)), _number(c["slope"])])
    header = ["predictor", "steps", "lowest", "2", "3", "4", "highest", "slope"]
    return [f"## reward calibration\n\n{about}", table(header, rows)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _cell(at: Result | None, digits: int) -> str:
    if at is None:
        return "–"
    text = f"{at['mean']:.{digits}f}"
    if at["low"] is None:
        return f"({text})"  # of one episode, or without an interval
    return f"{text} [{at['low']:.{digits}f}, {at['high']:.{digits}f}]"


def table(header: list[Any], rows: list[list[Any]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

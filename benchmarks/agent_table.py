"""The table of agents: what `worldmodel evaluate` wrote, and how each agent came about.

    python benchmarks/agent_table.py runs/agents/*

Each folder holds an `evaluation.json`; a `how.txt` beside it is the line on how the agent was trained. The experience
a second, of `benchmarks/experience.py`, is shown below. Writes agents.json and agents.md beside this script; rows of
other names that are there already stay.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from scripts.command import run_script
from scripts.output import read_record
from worldmodel.errors import UserError

HERE = Path(__file__).parent
KEPT = ("episodes", "mean", "std", "ci95", "unit", "agent", "env", "settings", "model", "command")


@dataclass
class Args:
    evaluations: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that `worldmodel evaluate` wrote; their names are those of the rows."""


def main(args: Args) -> None:
    table = HERE / "agents.json"
    rows: dict[str, Any] = read_record(table, {}).get("agents", {})
    for folder in args.evaluations:
        if not (folder / "evaluation.json").is_file():
            raise UserError(f"{folder} holds no evaluation.json: name folders that `worldmodel evaluate` wrote.")
        report = json.loads((folder / "evaluation.json").read_text())
        how = folder / "how.txt"
        said = how.read_text().strip() if how.exists() else rows.get(folder.name, {}).get("how", "")
        rows[folder.name] = {k: report[k] for k in KEPT} | {"how": said}
    experience = HERE / "experience.json"
    speed = read_record(experience, {}) or None
    table.write_text(json.dumps({"agents": rows, "experience": speed}, indent=1) + "\n")
    lines = ["# What agents earn", "", *_tables(rows)]
    if speed:
        lines += ["## Experience a second while PPO collects", "", *_experience(speed)]
    lines += ["## Commands", ""]
    lines += [f"- {name}: `{row['command']}`" for name, row in rows.items()]
    lines += [""]
    notes = HERE / "agents_notes.md"
    if notes.exists():
        lines += [notes.read_text()]
    (HERE / "agents.md").write_text("\n".join(lines))


def _tables(rows: dict[str, Any]) -> list[str]:
    """One table a world."""
    lines: list[str] = []
    for world in dict.fromkeys(_world(row) for row in rows.values()):
        lines += [f"## {world}", "", "| who | an episode | 95% interval of the mean | spread | episodes | how |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, row in rows.items():
            if _world(row) == world:
                low, high = row["ci95"]
                lines.append(
                    f"| {name} | {row['mean']:.1f} {row['unit']} | {low:.1f} to {high:.1f} | {row['std']:.1f} "
                    f"| {row['episodes']} | {row['how']} |"
                )
        lines.append("")
    return lines


def _world(row: dict[str, Any]) -> str:
    settings = " ".join(f"{k}={v}" for k, v in row["settings"].items())
    dreams = f"dreams of {row['model']}" if row["env"].endswith("Imagined-v0") else ""
    return dreams or f"{row['env']} {settings}".strip()


def _experience(speed: dict[str, Any]) -> list[str]:
    lines = [f"{speed['threads']} threads on {speed['cores']} cores, one world after the other in one run", ""]
    lines += ["| world | steps/s | in the world | in the agent |", "|---|---|---|---|"]
    for name, row in speed["worlds"].items():
        lines.append(f"| {name} | {row['steps_per_second']:.0f} | {row['world']:.0%} | {row['agent']:.0%} |")
    return [*lines, ""]


if __name__ == "__main__":
    run_script(main, Args)

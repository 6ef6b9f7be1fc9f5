"""Progress bars: how far, how fast, how long still."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


class RateColumn(ProgressColumn):
    """Units of work a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s")


def track(work: Sequence[T], description: str) -> Iterator[T]:
    """The items of `work`, with a progress bar."""
    columns = TextColumn(description), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn()) as progress:
        yield from progress.track(work)


def training_progress(shown: str) -> Progress:
    """The bar of a training; its tasks say how well it goes in their field `shown`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn(f"{{task.fields[{shown}]}}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )

"""The order in which the codes of a grid are drawn, and where each of them looks."""

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby

import torch
from torch import Tensor

Offset = tuple[int, int]  # (rows down, columns to the right) from a place
Rank = Callable[[int, int], int]
"""When a code at an offset is drawn: before (< 0), with (0) or after (> 0) the code at the centre."""


def offsets(side: int) -> list[Offset]:
    """All offsets of a square kernel."""
    reach = range(-(side // 2), side // 2 + 1)
    return [(a, b) for a in reach for b in reach]


def plan(code_shape: tuple[int, int], rank: Rank) -> tuple[list[Offset], list[slice]]:
    """All places (row, column) in the order in which they are drawn, and the stretch of it that each group is."""
    places = [(i, j) for i in range(code_shape[0]) for j in range(code_shape[1])]
    places.sort(key=lambda place: rank(*place))
    sizes = [len(list(group)) for _, group in groupby(places, key=lambda place: rank(*place))]
    return places, [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def looks(places: Sequence[Offset], taps: Sequence[Offset]) -> Tensor:
    """Where in the order each place looks, int64 [h*w, taps]; what lies beyond the edge stands behind its end."""
    turn = {place: index for index, place in enumerate(places)}
    return torch.tensor([[turn.get((i + a, j + b), len(places)) for a, b in taps] for i, j in places])

"""Turn right n steps and back: does the same view return?

What a frozen dream shows is the same view too, so the measure is how much *closer* the view at the end of the loop is
than the view at its turn, as a share of what the engine itself turns away by. A dream that stands still, or wanders off
wherever it is told to go, scores 0. The engine would score 1, but for turns that begin while one still coasts from what
was done before, as many in random play do: a dream's score is to be read beside the engine's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodel.benchmark.predictors import Predictor, check_prediction
from worldmodel.episodes import EpisodeStore

SHORTEST = 4  # turns of fewer steps are too common in random play to have been meant


@dataclass(frozen=True)
class Loop:
    """Frame `start + 2 * turn` of an episode should show what frame `start` showed."""

    episode: int
    start: int
    turn: int


def find_loops(store: EpisodeStore) -> list[Loop]:
    """All turns of n steps, n of SHORTEST or more, that n steps of the opposite turn follow, by the actions' names."""
    meanings = store.provenance["action_meanings"]
    opposite = {
        i: meanings.index(_opposite(name))
        for i, name in enumerate(meanings)
        if name.startswith(("look ", "turn ")) and _opposite(name) in meanings
    }
    loops = []
    for number in range(len(store)):
        actions = store[number].actions
        edges = np.flatnonzero(np.diff(actions, prepend=-1, append=-1))  # runs of one action begin and end here
        for start, end, following in zip(edges, edges[1:], edges[2:], strict=False):
            turn = int(end - start)
            if turn >= SHORTEST and opposite.get(int(actions[start])) == actions[end] and following - end >= turn:
                loops.append(Loop(number, int(start), turn))
    return loops


def consistency(
    predictor: Predictor | None, store: EpisodeStore, loops: list[Loop], *, samples: int, seeds: list[int]
) -> dict[str, np.ndarray]:
    """Dream every loop, given all frames up to its start; None: what the engine showed.

    Returns, one entry a loop, mean absolute differences to the view at the start, in grey levels and averaged over
    `samples`: "returned" at the end of the loop and "turned" at its turn; and "engine", what the engine turned away by.
    `seeds`: one a loop.
    """
    result = {name: np.zeros(len(loops)) for name in ("returned", "turned", "engine")}
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)  # loops that can be dreamed side by side
    for number, loop in enumerate(loops):
        alike[loop.start, loop.turn].append(number)
    for (start, turn), numbers in alike.items():
        episodes = [store[loops[number].episode] for number in numbers]
        frames = torch.stack([torch.from_numpy(e.frames[: start + 2 * turn + 1]) for e in episodes])
        view = frames[:, start]
        if predictor is None:
            shown = frames[:, None, start + 1 :]
        else:
            actions = torch.stack([torch.from_numpy(e.actions[: start + 2 * turn]) for e in episodes])
            given, taken = (x.repeat_interleave(samples, 0) for x in (frames[:, : start + 1], actions))
            row_seeds = [seeds[number] + sample for number in numbers for sample in range(samples)]
            prediction = predictor.predict(given, taken, 2 * turn, row_seeds)
            check_prediction(prediction, given, 2 * turn, predictor.name)
            shown = prediction.frames.unflatten(0, (-1, samples))
        result["engine"][numbers] = _difference(frames[:, start + turn], view).numpy()
        for name, step in (("returned", 2 * turn - 1), ("turned", turn - 1)):
            result[name][numbers] = _difference(shown[:, :, step], view[:, None]).mean(1).numpy()
    return result


def _difference(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).abs().mean((-3, -2, -1))


def _opposite(name: str) -> str:
    swapped = {"left": "right", "right": "left"}
    return " ".join(swapped.get(word, word) for word in name.split(" "))

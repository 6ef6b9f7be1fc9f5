"""Contexts x samples x predictors -> raw values, kept on disk as they come, so that an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worldmodel.benchmark.loops import Loop, consistency
from worldmodel.benchmark.measures import Measures
from worldmodel.benchmark.predictors import (
    Likelihood,
    Prediction,
    Predictor,
    Reconstruction,
    WorldPredictor,
    check_prediction,
)
from worldmodel.benchmark.protocols import Context, Protocol
from worldmodel.benchmark.weights import Fid, Fvd
from worldmodel.described import described
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.files import read_npz, write_bytes

FRAMES_AT_ONCE = 32_000  # predicted frames held in memory, 680 MB of 84x84 ones
ROWS_AT_ONCE = 64
SHOWN_CONTEXTS = 3  # contexts whose first sample is kept for pictures and films
SHOWN_FRAMES = 300
LOOKED_AT = (1, 2, 5, 10, 20, 50, 100, 150, 200, 260, 500, 1000)  # horizons in tables, pictures and for FID

Arrays = dict[str, npt.NDArray[Any]]
"""Raw values by name; the first axis is that of the contexts."""


class Truth:
    """What really happened: the value of every measure on real frames. Like `Reconstruction`, no `Predictor`."""

    name = "truth"

    def redraw(self, frames: Tensor) -> Tensor:
        return frames


@dataclass(frozen=True)
class Entry:
    """A line of the report: who predicts, how often, and whether the actions are withheld."""

    name: str
    by: Predictor | Truth | Reconstruction
    samples: int = 1
    withheld: bool = False

    @property
    def predictor(self) -> Predictor | None:
        """None for those who are shown the truth."""
        return None if isinstance(self.by, Truth | Reconstruction) else self.by


@dataclass(frozen=True)
class Judges:
    """Everything that looks at predicted frames, or has them turn and turn back."""

    measures: Measures
    fid: Fid | None = None
    fvd: Fvd | None = None
    loops: tuple[EpisodeStore, list[Loop]] | None = None


@dataclass(frozen=True)
class Chunk:
    """Contexts that are predicted together, and the number of the first among all; without contexts, all loops."""

    first: int
    contexts: list[Context]

    @property
    def name(self) -> str:
        return str(self.first) if self.contexts else "loops"


def chunks(contexts: list[Context], samples: int, protocol: Protocol) -> list[Chunk]:
    size = max(1, min(ROWS_AT_ONCE, FRAMES_AT_ONCE // protocol.imagined) // samples)
    return [Chunk(i, contexts[i : i + size]) for i in range(0, len(contexts), size)]


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def shown_contexts(count: int) -> list[int]:
    """The contexts that people get to see, spread over all."""
    return sorted(set(np.linspace(0, count - 1, SHOWN_CONTEXTS).round().astype(int).tolist()))


def measure(
    entries: Sequence[Entry],
    contexts: list[Context],
    protocol: Protocol,
    judges: Judges,
    folder: Path,
    *,
    seed: int,
    progress: Callable[[list[tuple[Entry, Chunk]]], Iterator[tuple[Entry, Chunk]]],
) -> tuple[dict[str, Arrays], dict[str, str]]:
    """The raw values of every entry, by its name, and why there are none for the others.

    Parts that `folder` holds whole are not computed again: it belongs to these arguments. Those of the loops are
    called "loops.returned" and so on, one a loop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = [(entry, chunk) for entry in entries for chunk in chunks(contexts, entry.samples, protocol)]
    if judges.loops is not None:
        turning = [e for e in entries if not e.withheld and not isinstance(e.by, Reconstruction)]
        work += [(entry, Chunk(0, [])) for entry in turning]
    shown = shown_contexts(len(contexts))
    parts: dict[str, list[Arrays]] = {entry.name: [] for entry in entries}
    refused: dict[str, str] = {}
    for entry, chunk in progress(work):
        if entry.name in refused:
            continue
        path = folder / f"{entries.index(entry):02d}.{chunk.name}.npz"
        with suppress(UserError):  # missing or damaged, it is measured
            parts[entry.name].append(read_npz(path))
            continue
        try:
            part = _measure_chunk(entry, chunk, protocol, judges, seed, shown)
        except UserError as error:
            refused[entry.name] = str(error)
            continue
        except Exception as error:
            if entry.predictor is None or isinstance(entry.predictor, WorldPredictor):
                raise  # not somebody else's model
            refused[entry.name] = f"{type(error).__name__}: {error}"
            continue
        content = BytesIO()
        np.savez_compressed(content, **part)  # type: ignore[arg-type]  # numpy takes its own options for arrays
        write_bytes(path, content.getvalue())
        parts[entry.name].append(part)
    complete = {name: some for name, some in parts.items() if name not in refused}
    return {name: _joined(some) for name, some in complete.items()}, refused


def _joined(parts: list[Arrays]) -> Arrays:
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: np.concatenate([part[key] for part in parts if key in part]) for key in keys}


def _measure_chunk(
    entry: Entry, chunk: Chunk, protocol: Protocol, judges: Judges, seed: int, shown: list[int]
) -> Arrays:
    """Raw values of some contexts C and all samples S at the measured horizons h, all horizons H:

    the measures by name [C, S, h], "features" [C, S, H, D], "rewards" and "terminated" [C, S, H], "bits_per_code"
    [C, h], "fid" [C, S, looked at, D'], "clip" [C, S, D''] and "shown" [shown contexts, frames, H_px, W_px, 3].
    Without contexts: what `consistency` returns.
    """
    if not chunk.contexts and judges.loops is not None:
        store, loops = judges.loops
        seeds = [seed_of(seed, number) for number in range(len(loops))]
        found = consistency(entry.predictor, store, loops, samples=entry.samples, seeds=seeds)
        return {f"loops.{name}": values for name, values in found.items()}
    numbers = range(chunk.first, chunk.first + len(chunk.contexts))
    seeds = [seed_of(seed, number, sample) for number in numbers for sample in range(entry.samples)]
    predicted = _predict(entry, chunk.contexts, protocol.given, seeds)
    rows = [predicted.frames[i][: _extent(entry, context)] for i, context in _rows(chunk, entry)]
    measured = [judges.measures(context, rows[i]) for i, context in _rows(chunk, entry)]
    result: Arrays = {name: np.stack([values[name] for values, _ in measured]) for name in measured[0][0]}
    result["features"] = np.stack([features for _, features in measured])
    for name, values in (("rewards", predicted.rewards), ("terminated", predicted.terminated)):
        if values is not None:
            result[name] = values.float().numpy()
    if judges.fid is not None:
        result["fid"] = np.stack([_at_horizons(judges.fid, row, protocol) for row in rows])
    result = {name: value.reshape(-1, entry.samples, *value.shape[1:]) for name, value in result.items()}
    if isinstance(entry.by, Likelihood):
        result["bits_per_code"] = np.stack([_bits(entry, entry.by, c, protocol) for c in chunk.contexts])
    if judges.fvd is not None:
        given = protocol.clip or protocol.given
        clips = predicted if given == protocol.given else _predict(entry, chunk.contexts, given, seeds)
        led_in = torch.stack([c.frames[:given] for _, c in _rows(chunk, entry)])
        features = judges.fvd.features(torch.cat([led_in, clips.frames], 1))
        result["clip"] = features.reshape(len(chunk.contexts), entry.samples, -1)
    seen = [i for i, number in enumerate(numbers) if number in shown]
    result["shown"] = _for_show([rows[i * entry.samples] for i in seen], rows[0].shape[1:], protocol)
    return result


def _predict(entry: Entry, contexts: list[Context], given: int, seeds: list[int]) -> Prediction:
    """All samples of all contexts, in this order, after `given` frames; an oracle's end with the truth."""
    if isinstance(entry.by, Truth | Reconstruction):
        longest = max(len(context.frames) for context in contexts)
        frames = torch.stack([_padded(context.frames, longest) for context in contexts])
        return Prediction(entry.by.redraw(frames)[:, given:])
    frames = torch.stack([context.frames[:given] for context in contexts]).repeat_interleave(entry.samples, 0)
    actions = torch.stack([context.actions for context in contexts]).repeat_interleave(entry.samples, 0)
    horizon = actions.shape[1] + 1 - given
    prediction = entry.by.predict(frames, None if entry.withheld else actions, horizon, seeds)
    check_prediction(prediction, frames, horizon, entry.name)
    return prediction


def _rows(chunk: Chunk, entry: Entry) -> list[tuple[int, Context]]:
    return list(enumerate(context for context in chunk.contexts for _ in range(entry.samples)))


def _extent(entry: Entry, context: Context) -> int | None:
    """How many frames of a row count: an oracle knows no more than the truth."""
    return context.known if entry.predictor is None else None


def _bits(entry: Entry, model: Likelihood, context: Context, protocol: Protocol) -> npt.NDArray[np.float32]:
    """Bits per code of the true frames at the measured horizons, [h]."""
    actions = None if entry.withheld else context.actions[None, : len(context.frames) - 1]
    told, expected = model.bits_per_code(context.frames[None], actions), (1, len(context.frames) - 1)
    if not isinstance(told, Tensor) or tuple(told.shape) != expected:
        raise UserError(f"{entry.name} must give bits per code {list(expected)}, not {described(told)}.")
    bits = told[0, context.given - 1 :].float().numpy()
    if not np.isfinite(bits).all():
        raise UserError(f"{entry.name} must give finite bits per code.")
    values = np.full(protocol.imagined, np.nan, np.float32)
    values[: len(bits)] = bits
    return values[np.array(protocol.horizons) - 1]


def _at_horizons(fid: Fid, frames: Tensor, protocol: Protocol) -> npt.NDArray[np.floating]:
    horizons = [h for h in LOOKED_AT if h <= protocol.imagined]
    known = [h for h in horizons if h <= len(frames)]
    found = fid.features(frames[torch.tensor(known) - 1])
    values = np.full((len(horizons), found.shape[1]), np.nan)
    values[: len(known)] = found
    return values


def _for_show(rows: list[Tensor], frame_shape: torch.Size, protocol: Protocol) -> npt.NDArray[np.uint8]:
    """The first frames of some rows, the last one repeated where there are fewer."""
    shown = np.zeros((len(rows), min(protocol.imagined, SHOWN_FRAMES), *frame_shape), np.uint8)
    for i, row in enumerate(rows):
        shown[i] = _padded(row[:SHOWN_FRAMES], shown.shape[1]).numpy()
    return shown


def _padded(frames: Tensor, length: int) -> Tensor:
    return torch.cat([frames, frames[-1:].expand(length - len(frames), -1, -1, -1)])

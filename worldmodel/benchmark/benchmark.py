"""The whole benchmark as one function: predictors and baselines, on one store, by one protocol -> a report."""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from worldmodel.benchmark.drift import frame_features
from worldmodel.benchmark.inverse import learn_inverse
from worldmodel.benchmark.loops import find_loops
from worldmodel.benchmark.measures import METRICS, Activity, Measures
from worldmodel.benchmark.predictors import (
    MeanFrame,
    NearestNeighbour,
    Predictor,
    Reconstruction,
    RepeatLast,
    WorldPredictor,
)
from worldmodel.benchmark.protocols import Context, Protocol, choose_contexts
from worldmodel.benchmark.running import Chunk, Entry, Judges, Truth, measure
from worldmodel.benchmark.summary import Summary, summarise_loops
from worldmodel.benchmark.weights import Fid, Fvd, Lpips
from worldmodel.digest import digest
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import check_store
from worldmodel.files import write_text
from worldmodel.metrics import Result

T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """Files that define LPIPS, FID and FVD: see `worldmodel.benchmark.weights`. None: not measured."""

    lpips: Path | None = None
    fid: Path | None = None
    fvd: Path | None = None


@dataclass
class Benchmarked:
    """A report, and what its pictures are made of."""

    report: Result
    contexts: list[Context]
    shown: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """By predictor, the first sample's frames of `shown_contexts`: [contexts, frames, H, W, 3]."""


def run_benchmark(
    predictors: Sequence[Predictor],
    store: EpisodeStore,
    protocol: Protocol,
    folder: Path,
    *,
    samples: int = 4,
    contexts: int = 48,
    training: EpisodeStore | None = None,
    loops: EpisodeStore | None = None,
    weights: Weights | None = None,
    seed: int = 0,
    progress: Callable[[list[tuple[Entry, Chunk]]], Iterator[tuple[Entry, Chunk]]] = iter,
) -> Benchmarked:
    """Measure `predictors`, each with and without actions, beside the baselines and the truth itself.

    Args:
        predictors: each under a name of its own.
        store: held-out episodes.
        folder: where raw values are kept as they come; a run with the same arguments goes on from there.
        samples: predictions from each context, of each of `predictors`; baselines have one.
        contexts: places in the store to predict from.
        training: for the mean frame, the nearest neighbour and the judge of actions; not measured without.
        loops: where to look for turns there and back; in `store` if not given.
        progress: goes through the work, and may show how far it is.

    Raises `UserError` when no episode is long enough, none of the predictors fits the store or all of them fail, two
    have one name, or `folder` holds a benchmark of other models, data or settings. What cannot be measured for want of
    something else, or because a model does not fit the store or fails, is left out of the report, and named in it with
    the reason.
    """
    chosen = choose_contexts(store, protocol, contexts, seed=seed)
    fitting, skipped = _fitting(predictors, store)
    if predictors and not fitting:
        raise UserError(" ".join(skipped.values()))
    entries = _entries(fitting, training, samples)
    data = digest(tensor for c in chosen for tensor in (c.frames, c.actions))
    _claim(folder, entries, data, dataclasses.asdict(protocol), seed, training, loops, weights)
    judges, absent = _judges(store, protocol, folder, training, loops, weights or Weights())
    raw, refused = measure(entries, chosen, protocol, judges, folder / "parts", seed=seed, progress=progress)
    if fitting and all(entry.name in refused for entry in entries if entry.by in fitting):
        why = "; ".join(f"{name}: {reason}" for name, reason in {**skipped, **refused}.items())
        raise UserError(f"None of the models can be measured: {why}")
    real_parts, inception_parts = [], []
    for frames in (torch.from_numpy(episode.frames) for episode in store):  # never all of them: they fill the memory
        real_parts.append(frame_features(frames).double().numpy())
        if judges.fid is not None:
            inception_parts.append(judges.fid.features(frames))
    real, inception = np.concatenate(real_parts), np.concatenate(inception_parts) if inception_parts else None
    summarise = Summary(chosen, protocol, real, inception)
    results = {name: summarise(arrays, raw[Truth.name].get("clip")) for name, arrays in raw.items()}
    results[Truth.name]["metrics"] |= summarise.truth()
    if not any("drift" in result["metrics"] for result in results.values()):
        absent["drift"] = "needs more contexts, or horizons of 5 and more"
    judge = judges.measures.judge
    judged_by = None if judge is None else digest(judge.state_dict().values())
    for entry in (e for e in entries if e.name in results):
        result, arrays = results[entry.name], raw[entry.name]
        if judges.loops is not None and "loops.returned" in arrays:
            result["metrics"]["consistency"] = summarise_loops(arrays, judges.loops[1])
        if isinstance(entry.by, WorldPredictor):
            result["tokenizer"] = digest(entry.by.world.video.state_dict().values())
        if judged_by is not None:
            result["judge"] = judged_by
    report = {
        "store": store.address,
        "data": data,
        "protocol": dataclasses.asdict(protocol),
        "samples": samples,
        "seed": seed,
        "contexts": [[c.episode, c.first] for c in chosen],
        "horizons": protocol.horizons,
        "metrics": {name: dataclasses.asdict(m) for name, m in METRICS.items()},
        "predictors": results,
        "not_measured": absent,
        "skipped": {**skipped, **refused},
    }
    return Benchmarked(report, chosen, {name: arrays["shown"] for name, arrays in raw.items()})


def _judges(
    store: EpisodeStore,
    protocol: Protocol,
    folder: Path,
    training: EpisodeStore | None,
    loops: EpisodeStore | None,
    weights: Weights,
) -> tuple[Judges, dict[str, str]]:
    """All that can look at predictions here, and what cannot, with the reason."""
    absent: dict[str, str] = {}
    lpips, fid, fvd = _load_weights(weights, absent)
    if protocol.beyond and fvd is not None:
        absent["fvd"], fvd = "the dreams go on where no truth is known", None
    judge = None
    if training is None:
        for name in ("action_fidelity", MeanFrame.name, NearestNeighbour.name):
            absent[name] = "needs the training episodes (--train-store)"
    else:
        judge = learn_inverse(training, folder / "inverse")
    turning = store if loops is None else loops
    found = find_loops(turning)
    if not found:
        absent["consistency"] = (
            f"nobody turns there and back in {turning.address}; name a store where they do (--loops)"
        )
    measures = Measures(protocol.horizons, Activity(store), judge, lpips)
    return Judges(measures, fid, fvd, (turning, found) if found else None), absent


def _load_weights(weights: Weights, absent: dict[str, str]) -> tuple[Lpips | None, Fid | None, Fvd | None]:
    def load(name: str, kind: Callable[[Path], T], path: Path | None) -> T | None:
        if path is None:
            absent[name] = f"needs its weights (--{name})"
            return None
        try:
            return kind(path)
        except UserError as error:
            absent[name] = str(error)
            return None

    return load("lpips", Lpips, weights.lpips), load("fid", Fid, weights.fid), load("fvd", Fvd, weights.fvd)


def _fitting(predictors: Sequence[Predictor], store: EpisodeStore) -> tuple[list[Predictor], dict[str, str]]:
    """The predictors that can be asked about this store, and why the others cannot."""
    fitting, skipped = [], {}
    for predictor in predictors:
        try:
            if isinstance(predictor, WorldPredictor):
                check_store(store, predictor.world)
            fitting.append(predictor)
        except UserError as error:
            skipped[predictor.name] = str(error)
    return fitting, skipped


def _entries(predictors: list[Predictor], training: EpisodeStore | None, samples: int) -> list[Entry]:
    entries = [Entry(p.name, p, samples) for p in predictors]
    entries += [Entry(f"{p.name}, no actions", p, samples, withheld=True) for p in predictors]
    entries.append(Entry(RepeatLast.name, RepeatLast()))
    if training is not None:
        entries += [Entry(kind.name, kind(training)) for kind in (MeanFrame, NearestNeighbour)]
    for p in predictors:
        if isinstance(p, WorldPredictor):
            name = f"reconstruction by {p.name}"
            entries.append(Entry(name, Reconstruction(name, p.world.video)))
    entries.append(Entry(Truth.name, Truth()))
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f'Two predictors are called "{twice}": give each a name of its own.')
    return entries


def _identity(by: object) -> list[object]:
    """What tells a model from an earlier version of itself: its weights or, of a foreign one, its code and values.

    Of a foreign one's values modules count and, unless their names begin with "_", arrays and what JSON can hold.
    """
    if isinstance(by, WorldPredictor):
        return [by.temperature, digest(by.world.state_dict().values())]
    found: list[object] = []
    with suppress(OSError, TypeError):  # made without a file
        found.append(_short(inspect.getsource(type(by))))
    if not type(by).__module__.startswith("worldmodel."):
        held = getattr(by, "__dict__", {}).items()
        values = {name: x for name, x in held if not name.startswith("_") or isinstance(x, nn.Module)}
        with suppress(RecursionError):  # values that hold themselves
            found.append(_short(json.dumps([_mark(by), _mark(values)])))
    return found


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mark(value: object) -> object:
    """What tells a value from another, as JSON can hold it; None where nothing does."""
    if isinstance(value, list | tuple):
        return [_mark(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _mark(each) for key, each in value.items()}
    try:
        if isinstance(value, nn.Module):
            return digest(weight for weight in value.state_dict().values() if isinstance(weight, Tensor))
        if isinstance(value, np.ndarray):
            return digest([torch.from_numpy(np.ascontiguousarray(value))])
        if isinstance(value, Tensor):
            return digest([value])
    except (RuntimeError, TypeError, ValueError):  # tensors without values, arrays of objects
        return None
    if isinstance(value, np.generic | Path):
        return str(value)
    return value if isinstance(value, str | int | float | bool) else None


def _claim(folder: Path, entries: list[Entry], data: str, *settings: object) -> None:
    """Note in `folder` whose raw values it keeps. Raises `UserError` when they are of another benchmark."""
    models = [[e.name, e.samples, e.withheld, *_identity(e.by)] for e in entries]
    others = [[s.address, s.lengths.tolist()] if isinstance(s, EpisodeStore) else s for s in settings]
    claim = json.dumps({"predictors": models, "data": data, "settings": others}, default=str) + "\n"
    path = folder / "parts" / "of.json"
    learned = (folder / "inverse").exists() or any(path.parent.glob("*.npz"))
    if path.exists() and path.read_text() != claim and learned:
        raise UserError(
            f"{folder} holds a benchmark of other models, data or settings; choose another folder, or remove it."
        )
    write_text(path, claim)

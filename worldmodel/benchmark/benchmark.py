"""The whole benchmark as one function: predictors and baselines, on one store, by one protocol -> a report."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from worldmodel.benchmark.drift import Drift, frame_features
from worldmodel.benchmark.inverse import learn_inverse
from worldmodel.benchmark.loops import consistency, find_loops
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
from worldmodel.benchmark.running import Chunk, Entry, Judges, Oracle, Truth, measure, seed_of
from worldmodel.benchmark.summary import summarise, summarise_loops
from worldmodel.benchmark.weights import Fid, Fvd, Lpips
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import Result, check_store

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
        store: held-out episodes.
        folder: where raw values are kept as they come; a run with the same arguments goes on from there.
        samples: predictions from each context, of each of `predictors`; baselines have one.
        contexts: places in the store to predict from.
        training: for the mean frame, the nearest neighbour and the judge of actions; not measured without.
        loops: where to look for turns there and back; in `store` if not given.
        progress: goes through the work, and may show how far it is.

    Raises `UserError` when no episode is long enough. What cannot be measured for want of something else, or because a
    model does not fit the store, is left out of the report, and named in it with the reason.
    """
    chosen = choose_contexts(store, protocol, contexts, seed=seed)
    absent: dict[str, str] = {}
    lpips, fid, fvd = _load_weights(weights or Weights(), absent)
    judge = None
    if training is None:
        for name in ("action_fidelity", MeanFrame.name, NearestNeighbour.name):
            absent[name] = "needs the training episodes (--train-store)"
    else:
        judge = learn_inverse(training, folder / "inverse")
    if protocol.beyond and fvd is not None:
        absent["fvd"] = "the dreams go on where no truth is known"
        fvd = None
    fitting, skipped = _fitting(predictors, store)
    entries = _entries(fitting, training, samples)
    judges = Judges(Measures(protocol.horizons, Activity(store), judge, lpips), fid, fvd)
    raw, refused = measure(entries, chosen, protocol, judges, folder / "parts", seed=seed, progress=progress)
    drift = Drift(np.concatenate([frame_features(torch.from_numpy(e.frames)).double().numpy() for e in store]))
    results = {name: summarise(arrays, raw[Truth.name], chosen, protocol, drift) for name, arrays in raw.items()}
    _add_consistency(results, entries, store if loops is None else loops, seed, absent)
    report = {
        "store": store.address,
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
    return [*entries, Entry(Truth.name, Truth())]


def _add_consistency(
    results: dict[str, Result], entries: list[Entry], store: EpisodeStore, seed: int, absent: dict[str, str]
) -> None:
    """Fill in what comes of turning there and back, for those who can be asked and for the engine."""
    found = find_loops(store)
    if not found:
        absent["consistency"] = f"nobody turns and turns back in {store.address}; name a store where they do (--loops)"
        return
    seeds = [seed_of(seed, number) for number in range(len(found))]
    for entry in entries:
        if entry.name not in results or entry.withheld or isinstance(entry.by, Reconstruction):
            continue
        values = consistency(
            None if isinstance(entry.by, Oracle) else entry.by, store, found, samples=entry.samples, seeds=seeds
        )
        results[entry.name]["consistency"] = summarise_loops(values, found)

"""Recorded episodes: what an episode is, and the store that keeps many of them.

A store is a zarr v3 group at any fsspec address (a folder, `memory://...`, `s3://...`). It holds one flat array a
field, all episodes one after the other, and two short arrays with one entry an episode:

    frames      uint8   [S + N, H, W, 3]     N episodes of S steps in all; an episode of T steps has T + 1 frames
    actions     int64   [S]
    rewards     float32 [S]
    terminated  bool    [S]
    truncated   bool    [S]
    offsets     int64   [N + 1]              episode i has the steps offsets[i]:offsets[i + 1]
    seeds       int64   [N]                  -1: the episode has no seed

The group's attributes say how many episodes count. They are one small object that is replaced in one go, after
everything else of an episode is written: that is the commit. Whatever lies in the arrays beyond it was left by a writer
that died, and the next append overwrites it. Committed episodes are safe meanwhile: a file that the next episode shares
with them is replaced as a whole, and both zarr's local store (a new file, then a rename) and object stores do that
atomically.
"""

import errno
import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

import fsspec
import numpy as np
import numpy.typing as npt
import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.codecs import BloscCodec, Crc32cCodec

from worldmodel import __version__
from worldmodel.errors import UserError

FORMAT = 1
STEP_FIELDS = {"actions": np.int64, "rewards": np.float32, "terminated": np.bool_, "truncated": np.bool_}

CHUNK_FRAMES = 16  # about one training window
SHARD_FRAMES = 2048  # one file: few enough files for a bucket, small enough to be written anew with each episode
CHUNK_STEPS = 16384
NO_SEED = -1
# On 84x84 game frames noshuffle is 40% smaller than bitshuffle: colours repeat as whole bytes.
_COMPRESSORS = (BloscCodec(cname="zstd", clevel=5, shuffle="noshuffle", typesize=1), Crc32cCodec())


class Provenance(TypedDict):
    """Where episodes come from. Plain JSON; further keys are kept as they are."""

    env_id: str
    action_meanings: list[str]  # one a discrete action
    frame_skip: int  # engine steps an action
    fps: float  # frames of this store a second
    env_kwargs: NotRequired[dict[str, Any]]  # gymnasium.make(env_id, **env_kwargs) is the world recorded here
    seed: NotRequired[int | None]
    source: NotRequired[str]  # what was imported
    version: NotRequired[str]  # of this package; filled in by `EpisodeStore.create`


def flaw(provenance: Any) -> str | None:
    """What a provenance lacks, or says wrongly, if anything."""
    if not isinstance(provenance, dict):
        return "is not a JSON object with env_id, action_meanings, frame_skip and fps"
    if missing := Provenance.__required_keys__ - set(provenance):
        return f"does not say {', '.join(sorted(missing))}"
    env_id, meanings, frame_skip, fps = (provenance[key] for key in ("env_id", "action_meanings", "frame_skip", "fps"))
    named = isinstance(meanings, list) and all(isinstance(name, str) for name in [env_id, *meanings])
    paced = isinstance(frame_skip, int) and isinstance(fps, int | float) and frame_skip > 0 and 0 < fps < math.inf
    if not (named and paced and meanings and isinstance(provenance.get("env_kwargs", {}), dict)):
        return (
            "must give env_id as text, action_meanings as a list of texts, frame_skip and fps as numbers above 0, and "
            "env_kwargs, if any, as an object"
        )
    twice = sorted({name for name in meanings if meanings.count(name) > 1})
    return f"calls more than one action {', '.join(twice)}" if twice else None


@dataclass(eq=False)
class Episode:
    """One episode of T steps: `frames[t]` --`actions[t]`--> `frames[t + 1]`, paid `rewards[t]`, maybe the end.

    frames uint8 [T + 1, H, W, 3], actions int64 [T], rewards float32 [T], terminated and truncated bool [T] (true at
    the last step at most), and the seed it was reset with, if known.

    Raises `UserError` when a shape or a type is not that. Integer actions and real rewards of any width are converted.
    """

    frames: npt.NDArray[np.uint8]
    actions: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    seed: int | None = None

    def __post_init__(self) -> None:
        self.frames = np.asarray(self.frames)
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise UserError(
                f"Frames must be uint8 RGB of shape [T+1, H, W, 3], "
                f"but these are {self.frames.dtype} of shape {list(self.frames.shape)}."
            )
        steps = len(self.frames) - 1
        if steps < 1:
            raise UserError("An episode needs two frames and the action between them at least.")
        actions = self.actions
        for name, dtype in STEP_FIELDS.items():
            values = np.asarray(getattr(self, name))
            if not np.can_cast(values.dtype, dtype, casting="same_kind"):
                raise UserError(f"The {name} of an episode must be {np.dtype(dtype)}, but these are {values.dtype}.")
            if values.shape != (steps,):
                raise UserError(
                    f"An episode of {steps + 1} frames has {steps} {name}, but these have shape {list(values.shape)}."
                )
            with np.errstate(over="ignore"):
                setattr(self, name, values.astype(dtype))
        if (np.asarray(actions) != self.actions).any():
            raise UserError(f"The actions of an episode are int64, and these, up to {np.max(actions)}, are too large.")
        if not np.isfinite(self.rewards).all():
            raise UserError("The rewards of an episode are finite numbers, but some of these are not.")
        if (self.terminated | self.truncated)[:-1].any():
            raise UserError("An episode is terminated or truncated at its last step only: split it there.")
        if self.seed is not None and not (isinstance(self.seed, int | np.integer) and 0 <= self.seed < 2**63):
            raise UserError(f"An episode's seed is a whole number from 0 to {2**63 - 1}, but this is {self.seed}.")

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.actions)


def check_actions(episode: Episode, n_actions: int) -> None:
    """Raise `UserError` when an action of an episode is not in [0, n_actions)."""
    low, high = episode.actions.min(), episode.actions.max()
    if low < 0 or high >= n_actions:
        raise UserError(f"Actions must be in [0, {n_actions}), but this episode has {low} to {high}.")


class EpisodeStore:
    """A sequence of episodes at an fsspec address. Made by `create`, opened by `open`; one writer at a time.

    Attributes:
        address: where the store is.
        frame_shape: (H, W, 3).
        n_actions: actions are in [0, n_actions).
        provenance: where the episodes come from.
        lengths: int64 [N], steps of each episode.
    """

    def __init__(self, group: zarr.Group, address: str) -> None:
        attributes: dict[str, Any] = group.attrs.asdict()
        self._group = group
        self.address = address
        self.frame_shape: tuple[int, int, int] = tuple(attributes["frame_shape"])
        self.n_actions: int = attributes["n_actions"]
        self.provenance: Provenance = attributes["provenance"]
        if wrong := flaw(self.provenance):
            raise ValueError(f"its provenance {wrong}")
        if len(self.provenance["action_meanings"]) != self.n_actions:
            raise ValueError(f"its provenance does not name {self.n_actions} actions")
        n: int = attributes["episodes"]
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._offsets = np.zeros(1, np.int64)
        if n:
            self._arrays = {name: _array(group[name]) for name in self._layout()}
            self._offsets = np.asarray(self._arrays["offsets"][: n + 1])
            if len(self._offsets) != n + 1 or (np.diff(self._offsets) < 1).any():
                raise ValueError(f"its offsets are not those of {n} episodes")
            if self._arrays["frames"].shape[1:] != self.frame_shape:
                raise ValueError(f"its frames are not of shape {self.frame_shape}")
            self._check_complete()

    @classmethod
    def create(cls, address: str, *, frame_shape: tuple[int, int, int], n_actions: int, provenance: Provenance) -> Self:
        """Make an empty store and open it for appending; one that is there, and empty, becomes what is described.

        Raises `UserError` when something else is at the address already, or when the description contradicts itself.
        """
        if wrong := flaw(provenance):
            raise UserError(f"What is said of the episodes {wrong}.")
        if len(provenance["action_meanings"]) != n_actions:
            raise UserError(
                f"{n_actions} actions need {n_actions} action meanings, not {len(provenance['action_meanings'])}."
            )
        if len(frame_shape) != 3 or min(frame_shape) < 1 or frame_shape[-1] != 3:
            raise UserError(f"Frames are RGB, of shape (H, W, 3), but this shape is {tuple(frame_shape)}.")
        location, filesystem, path = _locate(address)
        there = cls.exists(address) and not len(cls.open(address))
        if not there and filesystem.exists(path) and (not filesystem.isdir(path) or filesystem.ls(path)):
            raise UserError(
                f"There is something at {address} already: give a new address, or append to the store there."
            )
        attributes = {
            "worldmodel_episodes": FORMAT,
            "episodes": 0,
            "frame_shape": [int(size) for size in frame_shape],
            "n_actions": int(n_actions),
            "provenance": {**provenance, "version": __version__},
        }
        with _writing(address):
            if there:
                group = zarr.open_group(location, mode="r+", zarr_format=3).update_attributes(attributes)
            else:
                group = zarr.create_group(location, zarr_format=3, attributes=attributes)
        return cls(group, address)

    @classmethod
    def open(cls, address: str, *, append: bool = False) -> Self:
        """Open the store at an address, for reading unless `append`.

        Raises `UserError` when there is no store, or when it is damaged.
        """
        if not cls.exists(address):
            raise UserError(
                f"There is no episode store at {address}: make one with `worldmodel collect` or `worldmodel import`."
            )
        location, filesystem, path = _locate(address)
        with _reading(address):
            group = zarr.open_group(location, mode="r+" if append else "r", zarr_format=3)
            if append and isinstance(filesystem, LocalFileSystem):
                for left in Path(path).rglob("*.partial"):  # by a writer that was killed
                    left.unlink()
        if group.attrs.get("worldmodel_episodes") != FORMAT:
            raise UserError(f"{address} is not an episode store of a kind this version reads.")
        with _reading(address):
            return cls(group, address)

    @staticmethod
    def exists(address: str) -> bool:
        """Whether there is a store at an address, damaged or not."""
        _, filesystem, path = _locate(address)
        return bool(filesystem.exists(f"{path}/zarr.json"))

    def append(self, episode: Episode) -> None:
        """Add an episode at the end: wholly, or not at all if anything goes wrong on the way.

        Raises `UserError` when the episode does not fit the store, or when it cannot be written (no space left).
        """
        if episode.frames.shape[1:] != self.frame_shape:
            raise UserError(
                f"{self.address} holds frames of shape {self.frame_shape}, not {tuple(episode.frames.shape[1:])}."
            )
        check_actions(episode, self.n_actions)
        if self._group.read_only:
            raise UserError(f"{self.address} is open for reading only: open it with append=True.")
        n, start = len(self), int(self._offsets[-1])
        with _reading(self.address):
            present = zarr.open_group(self._group.store_path, mode="r").attrs["episodes"]
        if present != n:
            raise UserError(f"{self.address} was written to by another process: one writer at a time.")
        end = start + len(episode)
        with _writing(self.address):
            if n == 0:
                self._arrays = {
                    name: _array(self._group.create_array(name, **layout, overwrite=True))
                    for name, layout in self._layout().items()
                }
            self._write("frames", start + n, episode.frames)
            for name in STEP_FIELDS:
                self._write(name, start, getattr(episode, name))
            self._write("offsets", n, np.array([start, end]))
            self._write("seeds", n, np.array([NO_SEED if episode.seed is None else episode.seed]))
            self._group.update_attributes({"episodes": n + 1})  # the commit
        self._offsets = np.append(self._offsets, end)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._offsets) - 1

    def __getitem__(self, i: int) -> Episode:
        i = range(len(self))[operator.index(i)]
        start, end = self._offsets[i], self._offsets[i + 1]
        with _reading(self.address):
            seed = int(np.asarray(self._arrays["seeds"][i]))
            steps = {name: np.asarray(self._arrays[name][start:end]) for name in STEP_FIELDS}
        return Episode(frames=self.frames(i), **steps, seed=None if seed == NO_SEED else seed)

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self._offsets)

    def frames(self, i: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """Frames start:stop of episode i, uint8 [stop - start, H, W, 3]; only the chunks they lie in are read."""
        i = range(len(self))[i]
        first = self._offsets[i] + i  # each episode before this one has one frame more than steps
        inside = range(self._offsets[i + 1] - self._offsets[i] + 1)[start:stop]
        with _reading(self.address):
            return np.asarray(self._arrays["frames"][first + inside.start : first + inside.stop])

    def flat(self, name: str) -> npt.NDArray[Any]:
        """All episodes' values of one field, one after the other: "frames" [S + N, H, W, 3], any other [S].

        Raises `UserError` for a field that there is not.
        """
        if name not in ("frames", *STEP_FIELDS):
            raise UserError(f"Episodes have frames, {', '.join(STEP_FIELDS)}, but no {name}.")
        if not len(self):
            return np.zeros((0, *self.frame_shape), np.uint8) if name == "frames" else np.zeros(0, STEP_FIELDS[name])
        with _reading(self.address):
            return np.asarray(self._arrays[name][: self._sizes()[name]])

    def _sizes(self) -> dict[str, int]:
        """Committed length of every array."""
        n, steps = len(self), int(self._offsets[-1])
        return {"frames": steps + n, **dict.fromkeys(STEP_FIELDS, steps), "offsets": n + 1, "seeds": n}

    def _layout(self) -> dict[str, dict[str, Any]]:
        """How each array is created."""
        layout: dict[str, dict[str, Any]] = {
            "frames": {
                "shape": (0, *self.frame_shape),
                "dtype": np.uint8,
                "chunks": (CHUNK_FRAMES, *self.frame_shape),
                "shards": (SHARD_FRAMES, *self.frame_shape),
            }
        }
        for name, dtype in {**STEP_FIELDS, "offsets": np.int64, "seeds": np.int64}.items():
            layout[name] = {"shape": (0,), "dtype": dtype, "chunks": (CHUNK_STEPS,)}
        return {name: {**array, "compressors": _COMPRESSORS} for name, array in layout.items()}

    def _write(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        array = self._arrays[name]
        array.resize((start + len(values), *array.shape[1:]))
        array[start:] = values

    def _check_complete(self) -> None:
        """Every array is as long as the commit says, and none of its files is missing (zarr would read zeros there)."""
        for name, size in self._sizes().items():
            array = self._arrays[name]
            per_file = (array.shards or array.chunks)[0]
            chunks = math.ceil(size / per_file) * (per_file // array.chunks[0])
            if array.shape[0] < size or array.nchunks_initialized < chunks:
                raise ValueError(f"a part of {name} is missing")


def _locate(address: str) -> tuple[str, Any, str]:
    """(what zarr opens, filesystem, path) of an address; a local one as a plain path, which zarr writes atomically."""
    try:
        filesystem, path = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"{address} cannot be opened: {error}.") from error
    return (path if isinstance(filesystem, LocalFileSystem) else address), filesystem, path


def _array(node: Any) -> zarr.Array[Any]:
    """An array that writes black frames and zero actions like any other, so that a missing file is known as such."""
    if not isinstance(node, zarr.Array):
        raise ValueError(f"{node.path} is not an array")
    return node.with_config({"write_empty_chunks": True})


@contextmanager
def _reading(address: str) -> Iterator[None]:
    """Whatever zarr and its codecs raise on damaged data, as one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"The episode store {address} is damaged or unreadable ({error}): restore a copy or record it again."
        ) from error


@contextmanager
def _writing(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = "no space left" if error.errno == errno.ENOSPC else str(error)
        raise UserError(
            f"Cannot write to {address} ({problem}): what was stored before is intact, so mend that and run again."
        ) from error

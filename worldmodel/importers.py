"""Episodes that were recorded elsewhere, brought into a store.

Recorded episodes are one of

- `minari:DATASET_ID`, a local Minari dataset of uint8 RGB observations and discrete actions

- `mirrored:STORE`, another store's episodes, each followed by its mirror image: its frames show left what was right,
  and its actions are those whose names say left for right

- `shifted:STORE`, another store's episodes, each followed by two copies whose frames lie some pixels off, as if the
  camera were held a little otherwise; a prior that sees few places learns their codes by heart less

- a folder of films, one an episode, in the order of their names (2 before 10), and the steps of them all, a row each:

      *.mp4            T + 1 frames each
      steps.npz        actions [N, T], rewards [N, T], ended [N] (cut off by a time limit: a truncation), seed [N]
      provenance.json  as below; a folder without it is taken for DeepMind Lab's, and the folder it is in for the level

- a folder of folders of pictures, one an episode, in the order of their names:

      provenance.json  {"env_id": "...", "action_meanings": ["left", "right", ...], "frame_skip": 1, "fps": 15}
      NAME/*.png       T + 1 frames, in the order of their names (or *.jpg, *.jpeg)
      NAME/steps.npz   actions [T], and where known: rewards [T], terminated [T], truncated [T], seed
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from worldmodel.episodes import Episode, EpisodeStore, Provenance, check_actions, flaw
from worldmodel.errors import UserError, require
from worldmodel.files import read_npz

MINARI, MIRRORED, SHIFTED = "minari:", "mirrored:", "shifted:"
SHIFT, SHIFTS = 3, 2  # pixels to any side at most, and copies
# Where a copy may begin in frames padded by so many pixels: anywhere but in the middle, where it would be none.
OFF = [(y, x) for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1) if (y, x) != (SHIFT, SHIFT)]
# In turn_left, turnLeft and UPLEFT, and not in bright.
SIDE = re.compile("(?<![a-z])(?i:left|right)(?![a-z])|(?:Left|Right)(?![a-z])")
PICTURES = {".png", ".jpg", ".jpeg"}
DMLAB_ACTIONS = [
    "forward",
    "backward",
    "strafe left",
    "strafe right",
    "look left",
    "look right",
    "forward + look left",
    "forward + look right",
    "fire",
]


@dataclass
class Source:
    """`episodes` episodes from elsewhere; `read(i)` reads the i-th, or raises `UserError` if it is not as it should."""

    provenance: Provenance
    episodes: int
    read: Callable[[int], Episode]


def open_source(address: str) -> Source:
    """The recording at `address`, as described above. Raises `UserError` when it is nothing of the kind."""
    if address.startswith(MINARI):
        return _minari(address)
    if address.startswith(MIRRORED):
        return _mirrored(address)
    if address.startswith(SHIFTED):
        return _shifted(address)
    folder = Path(address)
    if not folder.is_dir():
        raise UserError(f"There is no folder {address} to import.")
    films = sorted(folder.glob("*.mp4"), key=_in_order)
    if films:
        return _films(folder, films)
    episodes = sorted((path.parent for path in folder.glob("*/steps.npz")), key=_in_order)
    if episodes:
        without = {path.parent for path in folder.glob("*/*") if path.suffix.lower() in PICTURES} - set(episodes)
        if without:
            raise UserError(f"{min(without, key=_in_order)} has pictures and no steps.npz that says what was done.")
        return _pictures(folder, episodes)
    raise UserError(f"{address} has neither films (*.mp4) nor folders of pictures with a steps.npz to import.")


def import_episodes(source: Source, address: str, *, progress: Callable[[range], Iterable[int]] = iter) -> EpisodeStore:
    """Append a recording's episodes to the store at `address`, which is made if need be.

    Run again after an interruption, it goes on behind the episodes that are there. `progress` may wrap the range of
    episodes that are left, as `rich.progress.track` and `tqdm` do.

    Raises `UserError` when the store has episodes of another source, or an episode does not fit.
    """
    provenance = source.provenance
    if not EpisodeStore.exists(address):
        n_actions = len(provenance["action_meanings"])
        with _naming(source, 0):
            first = source.read(0)
            check_actions(first, n_actions)  # before there is a store, so that none is left empty
        EpisodeStore.create(address, frame_shape=first.frames.shape[1:], n_actions=n_actions, provenance=provenance)
    store = EpisodeStore.open(address, append=True)
    if store.provenance.get("source") != provenance["source"]:
        raise UserError(f"{address} has episodes that are not of {provenance['source']}: import into a new store.")
    for i in sorted({0, len(store) - 1}) if len(store) else ():
        with _naming(source, i):
            if i >= source.episodes or not np.array_equal(store.frames(i), source.read(i).frames):
                raise UserError(
                    f"{address} has another one there, of a source of the same name or of what this one was: "
                    "import into a new store."
                )
    for i in progress(range(len(store), source.episodes)):
        with _naming(source, i):
            store.append(source.read(i))
    return store


@contextmanager
def _naming(source: Source, i: int) -> Iterator[None]:
    """Say of what is raised inside that it is about the i-th episode."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Episode {i} of {source.provenance['source']}: {error}") from error


def _films(folder: Path, films: list[Path]) -> Source:
    provenance = _provenance(folder) or Provenance(
        env_id="worldmodel/DMLab-v0",
        env_kwargs={"level": folder.resolve().parent.name},
        action_meanings=DMLAB_ACTIONS,
        frame_skip=4,
        fps=15,
    )
    needed = "actions", "rewards", "ended", "seed"
    steps = read_npz(folder / "steps.npz", *needed)
    for name in needed:
        if steps[name].shape[:1] != (len(films),):
            raise UserError(f"{folder} has {len(films)} films, but its steps.npz has {name} of another number.")
    shape, known = steps["actions"].shape, len(provenance["action_meanings"])
    if len(shape) != 2 or not shape[1] or steps["rewards"].shape != shape:
        raise UserError(f"{folder / 'steps.npz'} needs actions and rewards of shape [N, T], one row a film.")
    if any(steps[name].shape != shape[:1] or steps[name].dtype.kind not in "biu" for name in ("ended", "seed")):
        raise UserError(f"{folder / 'steps.npz'} needs ended (bool) and seed (whole numbers) of shape [N].")
    if not ((steps["actions"] >= 0) & (steps["actions"] < known)).all():
        raise UserError(f"The actions in {folder / 'steps.npz'} do not all lie between 0 and {known - 1}.")

    def read(i: int) -> Episode:
        actions = steps["actions"][i]
        truncated = np.zeros(len(actions), np.bool_)
        truncated[-1] = steps["ended"][i]
        return Episode(
            frames=_film(films[i]),
            actions=actions,
            rewards=steps["rewards"][i],
            terminated=np.zeros(len(actions), np.bool_),
            truncated=truncated,
            seed=int(steps["seed"][i]),
        )

    return Source({**provenance, "source": _name(folder)}, len(films), read)


def _pictures(folder: Path, episodes: list[Path]) -> Source:
    provenance = _provenance(folder)
    if provenance is None:
        raise UserError(
            f'{folder} has no provenance.json: write {{"env_id": ..., "action_meanings": [...], '
            f'"frame_skip": ..., "fps": ...}} there to say what was recorded.'
        )

    def read(i: int) -> Episode:
        steps = read_npz(episodes[i] / "steps.npz", "actions")
        actions = steps["actions"]
        seed = steps.get("seed", np.array(0))
        if actions.ndim != 1 or seed.size != 1 or seed.dtype.kind not in "iu":
            raise UserError(
                f"{episodes[i] / 'steps.npz'} needs actions of shape [T], and one seed if any, a whole number."
            )
        return Episode(
            frames=_frames(episodes[i]),
            actions=actions,
            rewards=steps.get("rewards", np.zeros(len(actions), np.float32)),
            terminated=steps.get("terminated", np.zeros(len(actions), np.bool_)),
            truncated=steps.get("truncated", np.zeros(len(actions), np.bool_)),
            seed=seed.item() if "seed" in steps else None,
        )

    return Source({**provenance, "source": _name(folder)}, len(episodes), read)


def _minari(source: str) -> Source:
    minari = require("minari", "minari")
    dataset_id = source.removeprefix(MINARI)
    try:
        dataset = minari.load_dataset(dataset_id)
    except FileNotFoundError:
        raise UserError(
            f"There is no Minari dataset {dataset_id} here: `minari download` gets those of others."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read ({error}).") from error
    actions = dataset.action_space
    if not (hasattr(actions, "n") and hasattr(actions, "start")):  # which of Gymnasium's spaces Discrete alone has both
        raise UserError(f"{source} has actions {actions}, but a world model needs discrete ones.")

    def read(i: int) -> Episode:
        episode = dataset[i]
        if not isinstance(episode.observations, np.ndarray):
            raise UserError(f"{source} has observations {dataset.observation_space}, but a world model needs frames.")
        (about,) = dataset.storage.get_episode_metadata([i])
        return Episode(
            frames=episode.observations,
            actions=episode.actions - actions.start,
            rewards=episode.rewards,
            terminated=episode.terminations,
            truncated=episode.truncations,
            seed=about.get("seed"),
        )

    # What `export_minari` wrote there; the datasets of others do not say how fast their frames go by.
    provenance: Provenance = dataset.storage.metadata.get("provenance") or Provenance(
        env_id=dataset.env_spec.id if dataset.env_spec else source,
        action_meanings=[str(i) for i in range(actions.start, actions.start + actions.n)],
        frame_skip=1,
        fps=30,
    )
    return Source({**provenance, "source": source}, dataset.total_episodes, read)


def _mirrored(source: str) -> Source:
    store = _filled(source.removeprefix(MIRRORED))
    meanings = store.provenance["action_meanings"]
    images = [SIDE.sub(_other_side, name) for name in meanings]
    if images == meanings:
        raise UserError(
            f"No action of {store.address} says left or right: it is not known what mirror images would do."
        )
    if missing := sorted(set(images) - set(meanings)):
        raise UserError(f"{store.address} has no action {', '.join(missing)}, as its mirror images would need.")
    image_of = np.array([meanings.index(name) for name in images])  # [A]

    def read(i: int) -> Episode:
        episode = store[i // 2]
        if i % 2 == 0:
            return episode
        frames = np.ascontiguousarray(episode.frames[:, :, ::-1])
        return dataclasses.replace(episode, frames=frames, actions=image_of[episode.actions], seed=None)

    return Source(_derived(store, MIRRORED), 2 * len(store), read)


def _shifted(source: str) -> Source:
    store = _filled(source.removeprefix(SHIFTED))
    height, width, _ = store.frame_shape

    def read(i: int) -> Episode:
        number, copy = divmod(i, 1 + SHIFTS)
        episode = store[number]
        if copy == 0:
            return episode
        chosen = np.random.default_rng(number).choice(len(OFF), SHIFTS, replace=False)
        y, x = OFF[chosen[copy - 1]]
        padded = np.pad(episode.frames, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
        frames = np.ascontiguousarray(padded[:, y : y + height, x : x + width])
        return dataclasses.replace(episode, frames=frames, seed=None)

    return Source(_derived(store, SHIFTED), (1 + SHIFTS) * len(store), read)


def _filled(address: str) -> EpisodeStore:
    store = EpisodeStore.open(address)
    if not len(store):
        raise UserError(f"{store.address} is empty: there is nothing to make images of.")
    return store


def _derived(store: EpisodeStore, how: str) -> Provenance:
    original = store.provenance.get("source", _name(Path(store.address)))
    return {**store.provenance, "source": how + original}


def _other_side(side: re.Match[str]) -> str:
    """left for right, and right for left, in capitals where that was."""
    other = "right" if side[0].lower() == "left" else "left"
    return other.upper() if side[0].isupper() else other.capitalize() if side[0][0].isupper() else other


def _film(path: Path) -> npt.NDArray[np.uint8]:
    """All frames of a film as they are, uint8 [T, H, W, 3]."""
    try:
        with av.open(path) as film:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise UserError(f"{path} is not a film that can be read ({error}).") from error


def _frames(folder: Path) -> npt.NDArray[np.uint8]:
    """Pictures of one size as frames, uint8 [T, H, W, 3]."""
    frames: list[npt.NDArray[np.uint8]] = []
    for path in sorted(folder.iterdir(), key=_in_order):
        if path.suffix.lower() not in PICTURES:
            continue
        try:
            with Image.open(path) as picture:
                frames.append(np.asarray(picture))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"{path} is not a picture that can be read ({error}).") from error
        if frames[-1].shape != (*frames[0].shape[:2], 3):
            raise UserError(f"{path} has shape {frames[-1].shape}, not that of the first frame in RGB.")
    if not frames:
        raise UserError(f"{folder} has no pictures ({', '.join(sorted(PICTURES))}).")
    return np.stack(frames)


def _provenance(folder: Path) -> Provenance | None:
    path = folder / "provenance.json"
    if not path.exists():
        return None
    try:
        provenance = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
    if wrong := flaw(provenance):
        raise UserError(f"{path} {wrong}.")
    return cast(Provenance, provenance)


def _in_order(path: Path) -> list[str | int]:
    """Sorts names as people count: 2.png before 10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _name(folder: Path) -> str:
    """What a folder is called wherever it is moved to: its last two parts."""
    return "/".join(folder.resolve().parts[-2:])

"""`worldmodel/DMLab-v0`: a DeepMind Lab level as a plain Gymnasium world, image in, one of a few actions out."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.actions import check_action
from worldmodel.errors import UserError

# The nine actions of IMPALA (Espeholt et al., 2018). The engine's seven numbers are: look left-right and look down-up
# (in [-512, 512]), strafe left-right and move back-forward (in [-1, 1]), fire, jump and crouch (0 or 1).
IMPALA_ACTIONS: Mapping[str, Sequence[int]] = MappingProxyType(
    {
        "forward": (0, 0, 0, 1, 0, 0, 0),
        "backward": (0, 0, 0, -1, 0, 0, 0),
        "strafe left": (0, 0, -1, 0, 0, 0, 0),
        "strafe right": (0, 0, 1, 0, 0, 0, 0),
        "look left": (-20, 0, 0, 0, 0, 0, 0),
        "look right": (20, 0, 0, 0, 0, 0, 0),
        "forward + look left": (-20, 0, 0, 1, 0, 0, 0),
        "forward + look right": (20, 0, 0, 1, 0, 0, 0),
        "fire": (0, 0, 0, 0, 1, 0, 0),
    }
)
STEPS_PER_SECOND = 60
OBSERVATION = "RGB_INTERLEAVED"


class DMLabEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One level of DeepMind Lab. Needs `deepmind_lab`, which is built from source.

    Observations are uint8 [height, width, 3]. One step holds an action for `frame_skip` of the engine's 60 steps a
    second. `actions` maps a name to the engine's seven integers; IMPALA's nine are the default, and
    `get_action_meanings()` gives the names. `level_cache` is a folder that keeps compiled mazes: the second visit to
    a maze takes a tenth of the time.

    Episodes end when the level says so, which is a truncation. The engine has no observation after its end, so the
    last one repeats the one before. `reset(seed=n)` plays the level's seed n.

    Raises `UserError` when `deepmind_lab` is missing, the level cannot be loaded, or an action or a size is not valid.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        level: str = "seekavoid_arena_01",
        *,
        height: int = 84,
        width: int = 84,
        frame_skip: int = 4,
        actions: Mapping[str, Sequence[int]] = IMPALA_ACTIONS,
        level_cache: str | Path | None = None,
        render_mode: str | None = None,
    ) -> None:
        if min(height, width, frame_skip) < 1:
            raise UserError(f"height, width and frame_skip are 1 or more, not {height}, {width} and {frame_skip}.")
        try:
            deepmind_lab = importlib.import_module("deepmind_lab")
        except ImportError as error:
            raise UserError(
                "deepmind_lab is not installed and not on PyPI; build it from source as "
                "https://github.com/google-deepmind/lab says (docs/users/build.md), or use recorded episodes."
            ) from error
        self.frame_skip = frame_skip
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": STEPS_PER_SECOND / frame_skip}
        settings = {"width": str(width), "height": str(height), "fps": str(STEPS_PER_SECOND)}
        cache = None if level_cache is None else LevelCache(Path(level_cache))
        try:
            self._lab = deepmind_lab.Lab(level, [OBSERVATION], config=settings, level_cache=cache)
        except RuntimeError as error:
            raise UserError(f"DeepMind Lab cannot load the level {level!r}: {error}") from error

        _check_actions(actions, self._lab.action_spec())
        self._meanings = list(actions)
        self._actions = [np.array(action, np.intc) for action in actions.values()]  # the engine takes no other dtype
        self.action_space = spaces.Discrete(len(actions))
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)
        self._frame = np.zeros((height, width, 3), np.uint8)

    def get_action_meanings(self) -> list[str]:
        """The name of each action, in order."""
        return list(self._meanings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        # The engine's seed is a C int, and a level may also look at the episode's number, so that is fixed too.
        level_seed = int(self.np_random.integers(2**31)) if seed is None else seed % 2**31
        self._lab.reset(episode=0, seed=level_seed)
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        check_action(action, self.action_space)
        reward = self._lab.step(self._actions[action], num_steps=self.frame_skip)
        return self._observe(), reward, False, not self._lab.is_running(), {}

    def render(self) -> NDArray[np.uint8] | None:
        return self._frame.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._lab.close()

    def _observe(self) -> NDArray[np.uint8]:
        """The engine's frame, or the last one there was when the episode is over."""
        if self._lab.is_running():
            self._frame = self._lab.observations()[OBSERVATION]
        return self._frame.copy()


class LevelCache:
    """Compiled levels in a folder, one file a key: the object that `deepmind_lab.Lab(level_cache=...)` asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, key: str, pk3_path: str) -> bool:
        """Copy the level named `key` to `pk3_path`; False when it is not here."""
        try:
            shutil.copyfile(self.folder / key, pk3_path)
        except FileNotFoundError:
            return False
        return True

    def write(self, key: str, pk3_path: str) -> None:
        """Keep the level at `pk3_path` as `key`. Worlds that share the folder never see half a file."""
        handle, part = tempfile.mkstemp(dir=self.folder, prefix=".")
        os.close(handle)
        shutil.copyfile(pk3_path, part)
        os.replace(part, self.folder / key)


def _check_actions(actions: Mapping[str, Sequence[int]], spec: Sequence[Mapping[str, Any]]) -> None:
    if not actions:
        raise UserError("DMLab-v0 needs at least one action: give `actions` as {name: seven integers}.")
    for name, action in actions.items():
        if len(action) != len(spec):
            raise UserError(f"the action {name!r} has {len(action)} numbers; DeepMind Lab wants {len(spec)}.")
        for value, bounds in zip(action, spec, strict=True):
            if not bounds["min"] <= value <= bounds["max"]:
                raise UserError(
                    f"the action {name!r} sets {bounds['name']} to {value}; "
                    f"DeepMind Lab allows {bounds['min']} to {bounds['max']}."
                )

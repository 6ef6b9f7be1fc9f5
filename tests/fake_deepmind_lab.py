"""A stand-in for the engine's Python module that keeps its documented rules and raises where it would raise.

Rules kept (docs/users/python_api.md and the C module of github.com/google-deepmind/lab): settings are strings; an
action is an `np.intc` array of shape (7,); nothing can be stepped or observed before the first reset, after the
episode's end, or after close; a seed is a Python int; generated levels go through `level_cache.fetch` and `.write`.
The picture is only a colour a heading, a position and a level seed.
"""

import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = {"seekavoid_arena_01": False, "contributed/dmlab30/explore_object_locations_small": True}  # is it generated?
EPISODE_STEPS = 202  # not a multiple of 4: the end comes in the middle of a frame skip
ACTION_SPEC = [
    {"min": low, "max": high, "name": name}
    for name, low, high in (
        ("LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", -512, 512),
        ("LOOK_DOWN_UP_PIXELS_PER_FRAME", -512, 512),
        ("STRAFE_LEFT_RIGHT", -1, 1),
        ("MOVE_BACK_FORWARD", -1, 1),
        ("FIRE", 0, 1),
        ("JUMP", 0, 1),
        ("CROUCH", 0, 1),
    )
]


class Lab:
    def __init__(
        self,
        level: str,
        observations: list[str],
        config: dict[str, str] | None = None,
        renderer: str = "software",
        level_cache: Any = None,
    ) -> None:
        if not isinstance(observations, list):
            raise TypeError("argument 2 must be list")
        config = {} if config is None else config
        for key, value in config.items():
            if not (isinstance(key, str) and isinstance(value, str)):
                raise TypeError("bad argument type for built-in operation")
            if key not in ("width", "height", "fps"):
                raise RuntimeError(f"Failed to apply setting '{key} = {value}'")
        if level not in LEVELS:
            raise RuntimeError(f"Failed to init environment - \"Level not found: '{level}'\"")
        for name in observations:
            if name != "RGB_INTERLEAVED":
                raise ValueError(f"Unknown observation '{name}'.")
        self._level, self._cache = level, level_cache
        self._shape = (int(config.get("height", "240")), int(config.get("width", "320")), 3)
        self._running = self._closed = False
        self._episode = 0

    def action_spec(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in ACTION_SPEC]

    def reset(self, episode: int = -1, seed: int | None = None) -> bool:
        if not (seed is None or type(seed) is int):
            raise ValueError(f"'seed' must be int or None, was '{type(seed).__name__}'.")
        if self._closed:
            raise RuntimeError("Environment is closed")
        self._episode = episode if episode >= 0 else self._episode
        seed = int(np.random.default_rng().integers(2**31)) if seed is None else int(np.int64(seed).astype(np.intc))
        content = f"{self._level} {self._episode} {seed}".encode()
        if LEVELS[self._level] and self._cache is not None:
            content = self._cached(f"key{zlib.crc32(content)}", content)
        self._rng = np.random.default_rng(zlib.crc32(content))
        self._place = self._rng.uniform(0, 255, size=3)
        self._episode += 1
        self._steps, self._running = 0, True
        return True

    def _cached(self, key: str, content: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            pk3 = Path(folder) / "level.pk3"
            if not self._cache.fetch(key, str(pk3)):
                pk3.write_bytes(content)
                self._cache.write(key, str(pk3))
            return pk3.read_bytes()

    def is_running(self) -> bool:
        return self._running

    def num_steps(self) -> int:
        return self._steps

    def step(self, action: np.ndarray, num_steps: int = 1) -> float:
        if not isinstance(action, np.ndarray):
            raise TypeError("argument 1 must be numpy.ndarray")
        if not self._running:
            raise RuntimeError("Environment in wrong status to advance.")
        if action.shape != (len(ACTION_SPEC),):
            raise ValueError(f"action must have shape ({len(ACTION_SPEC)})")
        if action.dtype != np.intc:
            raise ValueError("action must have dtype np.intc")
        self._place += num_steps * np.array([action[0] / 20, action[2], action[3]])
        self._steps += num_steps
        self._running = self._steps < EPISODE_STEPS
        return float(self._rng.random() < 0.1)

    def observations(self) -> dict[str, np.ndarray]:
        if not self._running:
            raise RuntimeError("Environment in wrong status for call to observations()")
        return {"RGB_INTERLEAVED": np.full(self._shape, self._place % 256, np.uint8)}

    def close(self) -> bool:
        was_open, self._closed, self._running = not self._closed, True, False
        return was_open

"""`worldmodel/Doom-v0`: ViZDoom's scenarios as a plain Gymnasium world, image in, button out."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from envs.actions import check_action
from worldmodel.errors import UserError, require

SCENARIOS = (
    "basic",
    "deadly_corridor",
    "deathmatch",
    "defend_the_center",
    "defend_the_line",
    "health_gathering",
    "health_gathering_supreme",
    "my_way_home",
    "predict_position",
    "take_cover",
)
TICS_PER_SECOND = 35
TIME_LIMIT = 2100  # tics, of scenarios that have none: as in Ha & Schmidhuber's "World Models" (2018)


class DoomEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One of ViZDoom's scenarios. Needs the extra `[doom]`.

    Observations are uint8 [height, width, 3], the 320x240 screen resized by area. Actions are the scenario's buttons,
    one at a time, after "noop"; `get_action_meanings()` names them ("forward", "turn left", ...). One step holds the
    button for `frame_skip` of the game's 35 tics a second, and its reward is the sum over those tics.

    A scenario's time limit (2,100 tics where it has none) truncates; death or success terminates. The game has no
    screen after its end, so the last observation repeats the one before. The same seed plays the same game.

    Raises `UserError` when ViZDoom is missing, the scenario is unknown, or a size is not positive.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "unit": "reward"}

    def __init__(
        self,
        scenario: str = "take_cover",
        *,
        height: int = 84,
        width: int = 84,
        frame_skip: int = 4,
        render_mode: str | None = None,
    ) -> None:
        scenario = scenario.replace("-", "_")
        if scenario not in SCENARIOS:
            raise UserError(f"there is no Doom scenario {scenario!r}; choose one of {', '.join(SCENARIOS)}.")
        if not all(isinstance(number, int) and number >= 1 for number in (height, width, frame_skip)):
            raise UserError(
                f"height, width and frame_skip are whole numbers of 1 or more, not {height}, {width} and {frame_skip}."
            )
        vizdoom = require("vizdoom", "doom")
        self.frame_skip = frame_skip
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": TICS_PER_SECOND / frame_skip}
        if scenario == "take_cover":
            self.metadata["unit"] = "tics"  # survived: one reward each
        self._size = (width, height)

        self._game = vizdoom.DoomGame()
        self._game.load_config(str(Path(vizdoom.scenarios_path) / f"{scenario}.cfg"))
        buttons = [button for button in self._game.get_available_buttons() if vizdoom.is_binary_button(button)]
        self._game.set_available_buttons(buttons)
        self._game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        self._game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
        self._game.set_window_visible(False)
        self._game.set_episode_timeout(self._game.get_episode_timeout() or TIME_LIMIT)
        self._watchdog = _start(self._game, Path(vizdoom.scenarios_path).parent)

        self._buttons = np.eye(len(buttons) + 1, dtype=int)[:, 1:].tolist()  # row 0 presses nothing
        self._meanings = ["noop"] + [button.name.lower().replace("_", " ").removeprefix("move ") for button in buttons]
        self.action_space = spaces.Discrete(len(self._buttons))
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)
        self._frame = np.zeros((height, width, 3), np.uint8)

    def get_action_meanings(self) -> list[str]:
        """The name of each action, in order."""
        return list(self._meanings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)))
        self._game.new_episode()
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        check_action(action, self.action_space)
        reward = self._game.make_action(self._buttons[action], self.frame_skip)
        finished = self._game.is_episode_finished()
        truncated = finished and self._game.is_episode_timeout_reached()
        return self._observe(), reward, finished and not truncated, truncated, {}

    def render(self) -> NDArray[np.uint8] | None:
        return self._frame.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._game.close()
        self._watchdog.kill()
        self._watchdog.communicate()

    def _observe(self) -> NDArray[np.uint8]:
        """The screen, or the last one there was when the game is over."""
        state = self._game.get_state()
        if state is not None:
            screen = Image.fromarray(state.screen_buffer)
            self._frame = np.array(screen.resize(self._size, Image.Resampling.BOX))
        return self._frame.copy()


def _start(game: Any, package: Path) -> "subprocess.Popen[bytes]":
    """Start the engine so that nothing of it stays behind, even if this process is killed.

    The engine is a process of its own. It writes a settings file and a folder into its working folder, shares memory
    with us under names that only a clean end removes, and waits for ever for a parent that was killed. So it starts
    in a folder of its own, through a script that also tells its process id. The names are removed at once: the memory
    lives as long as its users. An interrupt from the keyboard, which the system sends to all of our processes, is for
    us alone. The returned shell, the watchdog, ends the engine when our end of the shell's input closes, which the
    system does however we die.
    """
    engine = str(package / "vizdoom")
    game.set_doom_config_path(os.devnull)
    game.set_doom_game_path(str(package / "freedoom2.wad"))  # and never a doom2.wad that happens to lie around
    with tempfile.TemporaryDirectory(prefix="doom-") as folder:
        script, pid = Path(folder, "engine"), Path(folder, "pid")
        run = f'cd {shlex.quote(folder)} && echo $$ > pid && exec {shlex.quote(engine)} "$@"'
        script.write_text(f"#!/bin/sh\ntrap '' INT\n{run}\n")
        script.chmod(0o700)
        game.set_vizdoom_path(str(script))
        game.init()
        engine_id = int(pid.read_text())
    maps = Path("/proc/self/maps")  # Linux; elsewhere shared memory has no files to find
    for line in maps.read_text().splitlines() if maps.exists() else []:
        if "/dev/shm/ViZDoom" in line and not line.endswith("(deleted)"):
            Path(line.split()[-1]).unlink(missing_ok=True)
    return subprocess.Popen(
        ["sh", "-c", f"read -r _; kill -9 {engine_id}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

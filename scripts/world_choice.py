"""Which world a command plays in: the fields, and what becomes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import torch
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit

from envs.latents import LatentObservation
from envs.observations import Obs
from envs.recording import World, action_meanings, make_world
from scripts.collect import parse_settings
from scripts.device import FASTEST, Device, check_device
from worldmodel.errors import UserError
from worldmodel.same_world import check_same
from worldmodel.world import WorldModel

IMAGINED = "worldmodel/Imagined-v0"


@dataclass
class WorldChoice:
    env: str = IMAGINED
    """The world: worldmodel/Imagined-v0 for dreams of --model, worldmodel/Doom-v0, worldmodel/DMLab-v0, or any other
    Gymnasium id (module:id for one that a module registers)."""
    scenario: str | None = None
    """Doom: the scenario, such as take-cover."""
    level: str | None = None
    """DeepMind Lab: the level, such as seekavoid_arena_01."""
    env_kwargs: tuple[str, ...] = ()
    """The world's other settings: name=value ..."""
    model: str | None = None
    """The model to dream with, and in whose latents an agent sees: a bundled name, a folder, or a Hub id."""
    horizon: int = 525
    """Steps after which a dream is truncated; 525 of a Doom model's are 2,100 tics, the time limit of the real one."""
    temperature: float = 1.0
    """Of dreams: above 1 less certain, which leaves an agent less to exploit."""
    device: Device = FASTEST
    """Where the model dreams, and the agent learns."""

    @property
    def imagined(self) -> bool:
        return self.env.split(":")[-1] == IMAGINED

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of a real world."""
        named = {"scenario": self.scenario, "level": self.level}
        return parse_settings(self.env_kwargs) | {name: value for name, value in named.items() if value is not None}

    def check(self) -> None:
        """Raise `UserError` for settings of a real world where dreams are meant."""
        if self.imagined and self.settings():
            raise UserError("--scenario, --level and --env-kwargs are for real worlds: choose one by --env.")

    def load(self, dtype: torch.dtype = torch.float32) -> WorldModel | None:
        """The model, if one is given. Raises `UserError` for dreams without one."""
        if self.imagined and self.model is None:
            raise UserError("Dreams need a model: --model doom-take-cover, or a folder that `worldmodel train` made.")
        check_device(self.device)
        return None if self.model is None else WorldModel.from_pretrained(self.model, device=self.device, dtype=dtype)


def check_fits(model: WorldModel, world: World) -> None:
    """Raise `UserError` unless the model has learned of such frames and actions as `world` has."""
    frame_shape = world.observation_space.shape or ()
    check_same("model", model.frame_shape, model.action_meanings, "this world", frame_shape, action_meanings(world))


def make_worlds(
    env: str,
    settings: dict[str, Any],
    num_envs: int,
    obs: Obs,
    world: WorldModel | None,
    *,
    max_steps: int | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Copies of a real world that reset in the step in which they end, seen as pixels or in the latents of `world`.

    Episodes are truncated after `max_steps`, if the world does not end them earlier.
    """
    make_world(env, settings).close()  # says what is wrong with it
    wrappers: list[Callable[[Any], gymnasium.Wrapper[Any, Any, Any, Any]]] = []
    if max_steps is not None:  # a wrapper of its own: make_vec's max_episode_steps would lift the world's own limit
        wrappers.append(partial(TimeLimit, max_episode_steps=max_steps))
    if obs != "pixels":
        wrappers.append(partial(LatentObservation, model=world, obs=obs))
    return gymnasium.make_vec(
        env,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
        wrappers=wrappers,
        **settings,
    )

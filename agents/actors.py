"""Who acts: agents and the simple policies that they are measured against, in dreams and in real worlds alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.latents import LatentStream
from envs.observations import Obs
from envs.recording import Player, Policy
from worldmodel.world import WorldModel

Rngs = Sequence[np.random.Generator]


class Actor(Protocol):
    """Chooses actions, int64 [N], for observations [N, ...] of the kind `obs`; any luck comes from the N generators."""

    obs: Obs
    world: WorldModel | None
    """The model in whose latents it sees, if it does not see pixels."""

    def act(self, observations: NDArray[Any], rngs: Rngs) -> NDArray[np.int64]: ...


@dataclass
class RandomActor:
    """Any action, each as likely as another."""

    n_actions: int
    obs: Obs = "pixels"
    world: WorldModel | None = None

    def act(self, observations: NDArray[Any], rngs: Rngs) -> NDArray[np.int64]:
        return np.array([rng.integers(self.n_actions) for rng in rngs])


@dataclass
class ConstantActor:
    """The same action, always."""

    action: int
    obs: Obs = "pixels"
    world: WorldModel | None = None

    def act(self, observations: NDArray[Any], rngs: Rngs) -> NDArray[np.int64]:
        return np.full(len(observations), self.action)


@dataclass
class Exploring:
    """An actor that takes a random action now and then: what a recording for a world model wants."""

    actor: Actor
    n_actions: int
    share: float

    def __post_init__(self) -> None:
        self.obs, self.world = self.actor.obs, self.actor.world

    def act(self, observations: NDArray[Any], rngs: Rngs) -> NDArray[np.int64]:
        wander = np.array([rng.random() < self.share for rng in rngs])
        anything = np.array([rng.integers(self.n_actions) for rng in rngs])
        return np.where(wander, anything, self.actor.act(observations, rngs))


def in_real_world(actor: Actor) -> Policy:
    """The actor as a player of `envs.recording`: it is shown frames, and sees them as it learned to."""

    def policy(rng: np.random.Generator) -> Player:
        stream = LatentStream(actor.world, actor.obs) if actor.world else None
        begun = False

        def play(frame: NDArray[np.uint8]) -> int:
            nonlocal begun
            observation: NDArray[Any] = frame
            if stream:
                observation = stream.go_on(frame) if begun else stream.begin(frame)
            begun = True
            return int(actor.act(observation[None], [rng])[0])

        return play

    return policy

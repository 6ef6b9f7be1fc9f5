"""What an actor earns: whole episodes, in a real world or in dreams."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from agents.actors import Actor, in_real_world
from envs.imagined_vector import ImaginedVectorEnv
from envs.recording import World, record
from worldmodel.episodes import Episode
from worldmodel.world import WorldModel

DRAWS = 10_000  # of the bootstrap


@dataclass
class Outcome:
    """One episode, as far as its score goes."""

    seed: int
    earned: float  # the sum of its rewards
    steps: int


@dataclass
class Score:
    """What N episodes earned."""

    episodes: int
    mean: float
    std: float
    """Of single episodes."""
    ci95: tuple[float, float]
    """Of the mean: a 95% bootstrap interval."""

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> "Score":
        earned = np.array([outcome.earned for outcome in outcomes])
        rng = np.random.default_rng(0)
        drawn = [rng.choice(earned, len(earned)).mean() for _ in range(DRAWS)]  # all at once may be gigabytes
        low, high = np.quantile(drawn, [0.025, 0.975])
        return cls(len(earned), float(earned.mean()), float(earned.std()), (float(low), float(high)))


def play(
    actor: Actor, make: Callable[[], World], seeds: list[int], *, worlds: int = 1, max_steps: int | None = None
) -> Iterator[Episode]:
    """One episode a seed in a real world, in that order; `worlds` of them at once."""
    episodes = record(make, in_real_world(actor), seeds, worlds=min(worlds, len(seeds)), max_steps=max_steps)
    with closing(episodes):
        yield from episodes


def outcome(episode: Episode) -> Outcome:
    assert episode.seed is not None
    return Outcome(episode.seed, float(episode.rewards.sum(dtype=np.float64)), len(episode.actions))


def dream(
    actor: Actor, world: WorldModel, seeds: list[int], *, horizon: int = 300, temperature: float = 1.0
) -> list[Outcome]:
    """One imagined episode a seed, all at once; each lasts until the model ends it, or for `horizon` steps."""
    n = len(seeds)
    envs = ImaginedVectorEnv(world, n, obs=actor.obs, horizon=horizon, temperature=temperature)
    observations, _ = envs.reset(seed=list(seeds))
    rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
    earned, steps, live = np.zeros(n), np.zeros(n, np.int64), np.ones(n, np.bool_)
    while live.any():
        observations, rewards, terminated, truncated, _ = envs.step(actor.act(observations, rngs))
        earned += np.where(live, rewards, 0.0)  # a row that has ended dreams on, unheeded
        steps += live
        live &= ~(terminated | truncated)
    return [Outcome(*row) for row in zip(seeds, earned.tolist(), steps.tolist(), strict=True)]

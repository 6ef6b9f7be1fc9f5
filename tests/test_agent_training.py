"""PPO's checkpoints: what goes on knows all that it knew, and does not live through the same again."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from tiny_world import tiny_world

from envs.imagined_vector import ImaginedVectorEnv
from worldmodel.errors import UserError
from worldmodel.world import WorldModel

pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from stable_baselines3 import PPO  # noqa: E402

from agents import training  # noqa: E402
from agents.caution import SurprisePenalty  # noqa: E402
from agents.policies import policy_settings  # noqa: E402
from agents.training import PPOConfig, train  # noqa: E402

EVERY = 32  # steps


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


class Watched(ImaginedVectorEnv):
    """Four dreams that keep where they began, and the first actions there."""

    def __init__(self, world: WorldModel) -> None:
        super().__init__(world, 4, obs="latents", horizon=6, autoreset_mode=AutoresetMode.SAME_STEP)
        self.starts: list[NDArray[np.int64]] = []
        self.actions: list[NDArray[np.int64]] = []

    def reset(self, **options: Any) -> Any:
        observations, info = super().reset(**options)
        self.starts.append(observations)
        return observations, info

    def step(self, actions: NDArray[np.int64]) -> Any:
        self.actions.append(actions)
        return super().step(actions)


def learn(
    envs: VectorEnv[Any, Any, Any], folder: Path, steps: int, evaluate: Callable[[PPO], None] = lambda learner: None
) -> PPO:
    config = PPOConfig(steps=steps, batch=EVERY, minibatch=16, epochs=1)
    return train(envs, config, folder, world=envs.unwrapped.world, every=EVERY, evaluate=evaluate)


def test_what_goes_on_has_other_luck_than_at_the_beginning_but_the_same_each_time(
    world: WorldModel, tmp_path: Path
) -> None:
    begun, gone_on, again = (Watched(world) for _ in range(3))
    learn(begun, tmp_path / "run", EVERY)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    learn(gone_on, tmp_path / "run", 2 * EVERY)
    learn(again, tmp_path / "copy", 2 * EVERY)
    assert not np.array_equal(gone_on.starts[0], begun.starts[0])
    assert not np.array_equal(gone_on.actions, begun.actions)
    np.testing.assert_array_equal(gone_on.starts[0], again.starts[0])
    np.testing.assert_array_equal(gone_on.actions, again.actions)
    later = Watched(world)
    learn(later, tmp_path / "run", 3 * EVERY)
    assert not any(np.array_equal(later.starts[0], earlier.starts[0]) for earlier in (begun, gone_on))


def test_a_kill_between_files_never_pairs_a_learner_with_the_rewards_of_another_time(
    world: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(Watched(world), tmp_path, EVERY)

    def replace_and_die(old: Any, new: Any, replace: Any = os.replace) -> None:
        replace(old, new)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(os, "replace", replace_and_die)
        learn(Watched(world), tmp_path, 2 * EVERY)

    def check(learner: PPO) -> None:
        rewards = learner.get_vec_normalize_env()
        assert rewards is not None
        assert rewards.ret_rms.count == pytest.approx(learner.num_timesteps, abs=0.01)

    assert learn(Watched(world), tmp_path, 3 * EVERY, check).num_timesteps == 3 * EVERY


def test_a_kill_between_evaluations_loses_what_came_after_the_last_checkpoint(
    world: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Watched):
        def step(self, actions: NDArray[np.int64]) -> Any:
            if len(self.actions) * self.num_envs >= 2 * EVERY:
                raise KeyboardInterrupt
            return super().step(actions)

    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0.0)
    config = PPOConfig(steps=3 * EVERY, batch=EVERY, minibatch=16, epochs=1)
    evaluated: list[int] = []

    def evaluate(learner: PPO) -> None:
        evaluated.append(learner.num_timesteps)

    with pytest.raises(KeyboardInterrupt):
        train(Dying(world), config, tmp_path, world=world, every=3 * EVERY, evaluate=evaluate)
    rest = Watched(world)
    train(rest, config, tmp_path, world=world, every=3 * EVERY, evaluate=evaluate)
    assert len(rest.actions) * rest.num_envs == EVERY and evaluated == [3 * EVERY]


def test_a_world_that_dies_of_the_same_interrupt_takes_nothing_with_it(world: WorldModel, tmp_path: Path) -> None:
    class Dying(Watched):
        def step(self, actions: NDArray[np.int64]) -> Any:
            if len(self.actions) * self.num_envs == EVERY + 8:
                signal.raise_signal(signal.SIGINT)
                raise RuntimeError("the engine is gone")
            return super().step(actions)

    config = PPOConfig(steps=3 * EVERY, batch=EVERY, minibatch=16, epochs=1)

    def check(learner: PPO) -> None:
        rewards = learner.get_vec_normalize_env()
        assert rewards is not None
        assert rewards.ret_rms.count == pytest.approx(learner.num_timesteps, abs=0.01)  # of lost batches, nothing

    with pytest.raises(KeyboardInterrupt):
        train(Dying(world), config, tmp_path, world=world, every=3 * EVERY, evaluate=check)
    rest = Watched(world)
    train(rest, config, tmp_path, world=world, every=3 * EVERY, evaluate=check)
    assert len(rest.actions) * rest.num_envs == 2 * EVERY


def test_a_batch_of_less_than_two_steps_of_each_is_refused(world: WorldModel, tmp_path: Path) -> None:
    config = PPOConfig(steps=8, batch=7, minibatch=2)
    with pytest.raises(UserError, match="two steps of each of 4"):
        train(Watched(world), config, tmp_path, world=world, every=8, evaluate=lambda learner: None)


def test_a_training_that_diverges_ends_in_one_sentence(world: WorldModel, tmp_path: Path) -> None:
    class Broken(Watched):
        def step(self, actions: NDArray[np.int64]) -> Any:
            observations, rewards, *rest = super().step(actions)
            return observations, np.full_like(rewards, np.nan), *rest

    with pytest.raises(UserError, match="lower the learning rate"):
        learn(Broken(world), tmp_path, 2 * EVERY)


def test_what_goes_on_looks_through_the_codebook_that_it_learned_with(tmp_path: Path) -> None:
    worlds = tiny_world(), tiny_world()
    learn(Watched(worlds[0]), tmp_path, EVERY)
    worlds[1].video.quantizer.embedding.add_(1.0)
    with pytest.raises(UserError, match="codebook"):
        learn(Watched(worlds[1]), tmp_path, 2 * EVERY)
    learner = learn(Watched(worlds[0]), tmp_path, 2 * EVERY)
    assert learner.num_timesteps == 2 * EVERY
    settings = policy_settings(learner.observation_space, worlds[0])
    PPO.load(tmp_path / "checkpoint.zip", device="cpu", policy_kwargs=settings)


def test_an_evaluation_that_was_interrupted_is_made_when_the_training_goes_on(
    world: WorldModel, tmp_path: Path
) -> None:
    def interrupted(learner: PPO) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(Watched(world), tmp_path, EVERY, interrupted)
    evaluated: list[int] = []
    rest = Watched(world)
    learn(rest, tmp_path, EVERY, lambda learner: evaluated.append(learner.num_timesteps))
    assert evaluated == [EVERY] and not rest.actions


def test_what_is_usual_is_remembered(world: WorldModel, tmp_path: Path) -> None:
    before = SurprisePenalty(Watched(world), 0.5)
    learn(before, tmp_path, EVERY)
    means = [before.usual.mean]

    class Remembered(SurprisePenalty):
        def step(self, actions: NDArray[np.int64]) -> Any:
            means.append(self.usual.mean)
            return super().step(actions)

    after = Remembered(Watched(world), 0.5)
    learn(after, tmp_path, 2 * EVERY)
    assert means[0] > 0 and means[1] == pytest.approx(means[0])
    assert after.usual.count == 2 * EVERY

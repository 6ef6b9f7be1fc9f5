"""Rare outcomes: seen often in training, and weighed so that what is learned is true of the recordings."""

import dataclasses
import uuid

import numpy as np
import pytest
import torch

from tests.made_episodes import N_ACTIONS, PROVENANCE, make_episode
from tests.tiny_world import CODE_SHAPE, FRAME_SHAPE, N_CODES, tiny_world
from worldmodel.episodes import EpisodeStore
from worldmodel.outcomes import OutcomeDataset, OutcomeObjective

LENGTHS = [40, 25, 60]
PAID = {0: [7], 2: [3, 50]}  # steps of an episode that pay


def sparse_store() -> EpisodeStore:
    """Three rewards and two ends in 125 steps."""
    address = f"memory://{uuid.uuid4()}"
    store = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for number, steps in enumerate(LENGTHS):
        rewards = np.zeros(steps)
        rewards[PAID.get(number, [])] = 1
        store.append(dataclasses.replace(make_episode(steps, number, FRAME_SHAPE), rewards=rewards))
    return store


def some_codes(store: EpisodeStore) -> torch.Tensor:
    return torch.randint(N_CODES, (int(store.lengths.sum()) + len(store), *CODE_SHAPE), dtype=torch.int16)


def test_half_of_the_draws_are_of_rare_steps_and_their_weight_makes_up_for_it() -> None:
    store = sparse_store()
    steps = OutcomeDataset(store, some_codes(store), 7, size=4000, seed=0)
    items = [steps[i] for i in range(len(steps))]
    paid = torch.stack([item["rewards"][0] == 1 for item in items])
    ended = torch.stack([item["terminated"][0] for item in items])
    weight = torch.cat([item["weight"] for item in items])
    assert (paid | ended).float().mean().item() == pytest.approx(0.5 + 0.5 * 5 / 125, abs=0.03)
    assert weight.mean().item() == pytest.approx(1, abs=0.05)
    # As often, so weighed, as in the recordings.
    assert (weight * paid).mean().item() == pytest.approx(3 / 125, rel=0.1)
    assert (weight * ended).mean().item() == pytest.approx(2 / 125, rel=0.1)
    seen = {steps.locate(i) for i in range(len(steps))}
    assert seen == {(episode, t) for episode, length in enumerate(LENGTHS) for t in range(length)}


def test_ends_are_shown_often_even_where_every_reward_is_another() -> None:
    address = f"memory://{uuid.uuid4()}"
    store = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for _ in range(2):
        store.append(make_episode(40, 0, FRAME_SHAPE))
    steps = OutcomeDataset(store, some_codes(store), 7, size=1000, seed=0)
    ended = torch.stack([steps[i]["terminated"][0] for i in range(1000)])
    assert ended.float().mean().item() == pytest.approx(0.5, abs=0.06)
    with pytest.raises(IndexError):
        steps[1000]


def test_where_nothing_is_rare_every_step_is_as_likely_as_any_other() -> None:
    address = f"memory://{uuid.uuid4()}"
    store = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    episode = make_episode(30, 1, FRAME_SHAPE)  # it pays another amount at each step, and never terminates
    store.append(episode)
    steps = OutcomeDataset(store, some_codes(store), 7, size=100, seed=0)
    assert all(steps[i]["weight"].item() == 1 for i in range(100))


def test_outcomes_are_learned_without_touching_the_prior() -> None:
    store, world = sparse_store(), tiny_world().float().requires_grad_(True)
    objective = OutcomeObjective(world.dynamics, store, some_codes(store), size=8)
    loss, scalars = objective.loss(objective.dataset.batch(0, 8))
    torch.testing.assert_close(loss, scalars["reward"] + scalars["termination"])
    loss.backward()
    touched = {name for name, p in world.named_parameters() if p.grad is not None}
    assert touched == {f"dynamics.outcome.{name}" for name, _ in world.dynamics.outcome.named_parameters()}

"""Rare outcomes: seen often in training, and weighed so that what is learned is true of the recordings."""

import dataclasses
import uuid

import numpy as np
import pytest
import torch

from tests.made_episodes import N_ACTIONS, PROVENANCE, make_episode
from tests.tiny_world import CODE_SHAPE, FRAME_SHAPE, N_CODES, tiny_world
from worldmodel.episodes import EpisodeStore
from worldmodel.outcomes import OutcomeDataset, OutcomeObjective, reward_classes

LENGTHS = [40, 25, 60]
VALUES = torch.tensor([-1.0, 0.0, 1.0])
PAID = {0: [7], 2: [3, 50]}  # steps of an episode that pay


def sparse_store(*, an_end_that_pays: bool = False) -> EpisodeStore:
    """Three rewards and two ends in 125 steps; if asked to, one of the ends pays, and another step costs."""
    address = f"memory://{uuid.uuid4()}"
    store = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for number, steps in enumerate(LENGTHS):
        rewards = np.zeros(steps)
        rewards[PAID.get(number, [])] = 1
        if an_end_that_pays:
            rewards[-1] = (1, -1, 0)[number]
        store.append(dataclasses.replace(make_episode(steps, number, FRAME_SHAPE), rewards=rewards))
    return store


def some_codes(store: EpisodeStore) -> torch.Tensor:
    return torch.randint(N_CODES, (int(store.lengths.sum()) + len(store), *CODE_SHAPE), dtype=torch.int16)


def test_half_of_the_draws_are_of_rare_steps() -> None:
    store = sparse_store()
    steps = OutcomeDataset(store, some_codes(store), 7, reward_values=VALUES, size=4000, seed=0)
    items = [steps[i] for i in range(len(steps))]
    rare = torch.stack([(item["rewards"][0] == 1) | item["terminated"][0] for item in items]).float().mean().item()
    assert rare == pytest.approx(0.5 + 0.5 * 5 / 125, abs=0.03)
    assert steps.unusual.tolist() == [True, False, True]
    assert rare / (1 - rare) == pytest.approx(steps.boost * 5 / 120, rel=0.1)
    seen = {steps.locate(i) for i in range(len(steps))}
    assert seen == {(episode, t) for episode, length in enumerate(LENGTHS) for t in range(length)}


def test_ends_are_shown_often_even_where_every_reward_is_another() -> None:
    address = f"memory://{uuid.uuid4()}"
    store = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for _ in range(2):
        store.append(make_episode(40, 0, FRAME_SHAPE))
    steps = OutcomeDataset(store, some_codes(store), 7, reward_values=VALUES, size=1000, seed=0)
    ended = torch.stack([steps[i]["terminated"][0] for i in range(1000)])
    assert ended.float().mean().item() == pytest.approx(0.5, abs=0.06)
    with pytest.raises(IndexError):
        steps[1000]


def test_where_nothing_is_rare_every_step_is_as_likely_as_any_other() -> None:
    address = f"memory://{uuid.uuid4()}"
    store = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    episode = make_episode(30, 1, FRAME_SHAPE)  # it pays another amount at each step, and never terminates
    store.append(episode)
    steps = OutcomeDataset(store, some_codes(store), 7, reward_values=VALUES, size=100, seed=0)
    assert steps.boost == 1 and not steps.unusual.any()
    assert len({steps.locate(i) for i in range(100)}) > 20


class Constant(torch.nn.Module):
    """The same outcome everywhere: the best of them are the shares of the recordings."""

    def __init__(self, shares: list[float], ends: float) -> None:
        super().__init__()
        self.reward = torch.nn.Parameter(torch.tensor(shares).log())
        self.termination = torch.nn.Parameter(torch.tensor(ends).logit())

    def forward(self, foreseen: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.reward.expand(len(frames), -1), self.termination.expand(len(frames))


def test_what_is_shown_too_often_is_learned_as_rare_as_it_is() -> None:
    """Nothing pulls at the shares of the recordings, where an end pays and another does not; much does elsewhere."""
    store, world = sparse_store(an_end_that_pays=True), tiny_world().float()
    rewards, ends = store.flat("rewards"), store.flat("terminated")
    counts = [int((rewards == value).sum()) for value in (-1, 0, 1)]
    assert counts == [1, 120, 4] and ends.sum() == 2 and (ends & (rewards != 0)).sum() == 1
    for shares, share_of_ends, pull in (
        ([n / 125 for n in counts], 2 / 125, False),
        ([1 / 3, 1 / 3, 1 / 3], 1 / 2, True),
        ([0.2, 0.4, 0.4], 0.4, True),  # as they are shown, or nearly
    ):
        constant = Constant(shares, share_of_ends)
        world.dynamics.outcome = constant  # type: ignore[assignment]
        objective = OutcomeObjective(world.dynamics, store, some_codes(store), size=2500)
        loss, _ = objective.loss(objective.dataset.batch(0, 2500))
        loss.backward()
        pulls = torch.cat([constant.reward.grad, constant.termination.grad[None]]).abs()  # type: ignore[index, list-item]
        assert pulls.max() < 0.02 if not pull else pulls.max() > 0.1


def test_rewards_between_the_values_that_are_told_apart_are_as_rare_as_their_nearest() -> None:
    store = sparse_store()
    values = torch.tensor([-0.2, 0.3, 0.9])  # as quantiles of many rewards may lie: none of them was paid
    steps = OutcomeDataset(store, some_codes(store), 7, reward_values=values, size=8, seed=0)
    assert steps.unusual.tolist() == [False, True, True]
    assert reward_classes(torch.tensor([0.0, 1.0, 0.2]), values).tolist() == [0, 2, 1]


def test_a_new_head_starts_from_the_shares_of_the_recordings() -> None:
    store, world = sparse_store(), tiny_world().float()
    objective = OutcomeObjective(world.dynamics, store, some_codes(store), size=8)
    objective.adopt_shares()
    outcome = world.dynamics.outcome
    assert outcome.reward.bias.exp().tolist() == pytest.approx([1 / 128, 123 / 128, 4 / 128])
    assert outcome.termination.bias.sigmoid().item() == pytest.approx(3 / 127)


def test_the_frame_that_an_outcome_is_learned_from_is_about_the_one_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that copies what it is told of a frame, and knows nothing else of it, tells all of it."""
    store, world = sparse_store(), tiny_world().float()
    seen: list[torch.Tensor] = []

    class Watching(Constant):
        def forward(self, *views: torch.Tensor) -> tuple[torch.Tensor, ...]:
            seen.append(views[-1][:, -1])
            return super().forward(*views)

    def copying(context: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return 50.0 * torch.nn.functional.one_hot(codes, N_CODES).movedim(-1, 1)

    world.dynamics.outcome = Watching([1 / 3] * 3, 0.5)  # type: ignore[assignment]
    monkeypatch.setattr(world.dynamics.head, "forward", copying)
    objective = OutcomeObjective(world.dynamics, store, some_codes(store), size=8)
    batch = objective.dataset.batch(0, 8)
    objective.loss(batch)
    assert torch.equal(seen[0], batch["frames"][:, -1].long())


def test_an_end_is_learned_from_what_a_dream_knows_of_it() -> None:
    """Not from the frame that came, which the prior may never draw."""
    store, world = sparse_store(), tiny_world()
    objective = OutcomeObjective(world.dynamics.eval(), store, some_codes(store), size=64)
    batch = objective.dataset.batch(0, 32)
    other = {**batch, "frames": batch["frames"].clone()}
    other["frames"][:, -1] = (other["frames"][:, -1] + 1) % N_CODES
    scalars = []
    for shown in (batch, other):
        torch.manual_seed(0)
        scalars.append(objective.loss(shown)[1])
    assert scalars[0]["termination"] == scalars[1]["termination"] and scalars[0]["reward"] != scalars[1]["reward"]


def test_outcomes_are_learned_without_touching_the_prior() -> None:
    store, world = sparse_store(), tiny_world().float().requires_grad_(True)
    objective = OutcomeObjective(world.dynamics, store, some_codes(store), size=8)
    loss, scalars = objective.loss(objective.dataset.batch(0, 8))
    torch.testing.assert_close(loss, scalars["reward"] + scalars["termination"])
    loss.backward()
    touched = {name for name, p in world.named_parameters() if p.grad is not None}
    assert touched == {f"dynamics.outcome.{name}" for name, _ in world.dynamics.outcome.named_parameters()}


def test_some_of_what_outcomes_are_told_by_is_forgotten_while_they_are_learned() -> None:
    outcome = tiny_world().dynamics.outcome
    foreseen = torch.randn(2, 16, *CODE_SHAPE, dtype=torch.float64)
    frames = torch.randint(N_CODES, (2, 3, *CODE_SHAPE))
    outcome.train()
    assert not torch.equal(outcome(foreseen, frames)[0], outcome(foreseen, frames)[0])
    outcome.eval()
    assert torch.equal(outcome(foreseen, frames)[0], outcome(foreseen, frames)[0])

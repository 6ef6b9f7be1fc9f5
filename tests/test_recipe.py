"""From a store to a world model: what a model that goes on keeps, and which rewards it can tell."""

import dataclasses
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.made_episodes import N_ACTIONS, PROVENANCE, make_episode
from tests.tiny_world import FRAME_SHAPE
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.files import read_tensors
from worldmodel.objectives import DynamicsObjective
from worldmodel.recipe import MAX_REWARDS, Recipe, _contexts, check_trainable, learn_prior, learn_tokenizer
from worldmodel.step import Batch
from worldmodel.training import FitConfig, Objective
from worldmodel.world import WorldModel

RECIPE = Recipe(tokenizer_steps=1, tokenizer_batch=1, prior_steps=1, prior_batch=1, dream_steps=0, outcome_steps=1)
STEPS = 40


def store_that_pays(rewards: np.ndarray) -> EpisodeStore:
    """One episode for every STEPS rewards."""
    store = EpisodeStore.create(
        f"memory://{uuid.uuid4()}",
        frame_shape=FRAME_SHAPE,
        n_actions=N_ACTIONS,
        provenance=PROVENANCE,
    )
    for number, paid in enumerate(np.split(rewards, len(rewards) // STEPS)):
        store.append(dataclasses.replace(make_episode(STEPS, number, FRAME_SHAPE), rewards=paid))
    return store


def test_a_model_goes_on_with_rewards_that_it_has_never_seen(tmp_path: Path) -> None:
    nothing, something = np.zeros(STEPS), np.zeros(STEPS)
    something[30] = 1
    before = store_that_pays(nothing)
    video = learn_tokenizer(before, RECIPE, tmp_path / "tokenizer", "cpu")
    start = learn_prior(before, video, RECIPE, tmp_path / "first")
    assert start.config.dynamics.reward_values == (0.0,)

    after = store_that_pays(np.concatenate([nothing, something]))
    check_trainable(after, RECIPE, tokenizer=video, start=start)
    world = learn_prior(after, video, RECIPE, tmp_path / "second", start=start)
    assert world.config.dynamics.reward_values == (0.0, 1.0)
    kept = dict(start.dynamics.named_parameters())
    for name, moved in world.dynamics.named_parameters():
        if not name.startswith("outcome.reward."):
            assert (kept[name] - moved).abs().max() < 0.01, name  # a first step is a tiny one
    share = world.dynamics.outcome.reward.bias.detach().softmax(0)  # begun with how often each occurs
    assert share[1] == pytest.approx(2 / 82, abs=0.01)

    again = learn_prior(before, video, RECIPE, tmp_path / "third", start=world)
    assert again.config.dynamics.reward_values == (0.0, 1.0)  # what is known is not forgotten
    with pytest.raises(UserError, match="draws in diagonal order: mend --order"):
        check_trainable(after, dataclasses.replace(RECIPE, order="raster"), tokenizer=video, start=start)
    meanings = tuple(reversed(start.config.action_meanings))
    with pytest.raises(UserError, match="other actions or shapes"):
        elsewhere = WorldModel(dataclasses.replace(start.config, action_meanings=meanings))
        check_trainable(after, RECIPE, tokenizer=video, start=elsewhere)


def test_dreams_are_left_out_by_no_steps_and_learned_from_other_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_that_pays(np.zeros(STEPS))
    video = learn_tokenizer(store, RECIPE, tmp_path / "tokenizer", "cpu")
    learn_prior(store, video, RECIPE, tmp_path / "without")
    assert not list((tmp_path / "without").glob("dreams*"))

    seen: dict[str, torch.Tensor] = {}
    loss = DynamicsObjective.loss

    def watched(self: DynamicsObjective, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen[self.name] = batch["frames"]
        return loss(self, batch)

    monkeypatch.setattr(DynamicsObjective, "loss", watched)
    learn_prior(store, video, dataclasses.replace(RECIPE, prior_batch=4, dream_steps=1), tmp_path / "with")
    assert not torch.equal(seen["prior"], seen["dreams"])


def test_some_of_the_prior_before_its_dreams_is_kept(tmp_path: Path) -> None:
    store = store_that_pays(np.zeros(STEPS))
    video = learn_tokenizer(store, RECIPE, tmp_path / "tokenizer", "cpu")
    recipe = dataclasses.replace(RECIPE, dream_steps=3)
    world = learn_prior(store, video, recipe, tmp_path / "prior")
    before = read_tensors(tmp_path / "prior" / "checkpoint.safetensors")
    after = read_tensors(tmp_path / "prior" / "dreams_after_1" / "checkpoint.safetensors")
    for name, weight in world.dynamics.state_dict().items():
        if not name.startswith("outcome."):  # which comes later
            start, end = before[f"model.{name}"], after[f"model.{name}"]
            torch.testing.assert_close(weight, 0.25 * start + 0.75 * end, atol=1e-7, rtol=1e-5)
    again = learn_prior(store, video, recipe, tmp_path / "prior")  # goes on at the end of all: the same
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, world.state_dict()[name]), name


def test_of_many_rewards_the_commonest_is_told_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rewards = np.where(rng.random(20 * STEPS) < 0.1, rng.uniform(-1, 1, 20 * STEPS), 0.0)
    store = store_that_pays(rewards)
    video = learn_tokenizer(store, RECIPE, tmp_path / "tokenizer", "cpu")
    values = np.array(learn_prior(store, video, RECIPE, tmp_path / "prior").config.dynamics.reward_values)
    assert len(values) == MAX_REWARDS and 0.0 in values
    paid = rewards.astype(np.float32)
    assert values[0] == paid.min() and values[-1] == paid.max()
    nearest = values[np.abs(paid[:, None] - values).argmin(1)]
    assert np.abs(nearest - paid).max() < 0.2 and nearest[paid == 0].tolist() == [0.0] * int((paid == 0).sum())


def test_frames_that_are_all_alike_are_not_learned_from(tmp_path: Path) -> None:
    store = EpisodeStore.create(
        f"memory://{uuid.uuid4()}", frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE
    )
    episode = make_episode(STEPS, 0, FRAME_SHAPE)
    for shade in (7, 7):
        store.append(dataclasses.replace(episode, frames=np.full_like(episode.frames, shade)))
    with pytest.raises(UserError, match="look the same"):
        learn_tokenizer(store, RECIPE, tmp_path / "tokenizer", "cpu")


def test_starts_are_moments_before_the_end(tmp_path: Path) -> None:
    store = store_that_pays(np.zeros(STEPS))  # of which the last step ends it
    codes = torch.arange(STEPS + 1, dtype=torch.int16)[:, None, None].expand(-1, 6, 6)  # each frame's is its number
    starts = _contexts(store, codes)
    assert store[0].terminated[-1] and len(starts) > 50
    assert int(starts.codes.max()) == STEPS - 1
    assert (starts.codes.diff(dim=1) <= 1).all()


def test_a_tokenizer_is_what_will_be_saved_of_it(tmp_path: Path) -> None:
    video = learn_tokenizer(store_that_pays(np.zeros(STEPS)), RECIPE, tmp_path / "tokenizer", "cpu")
    for name, weight in video.state_dict().items():
        if weight.is_floating_point():
            assert torch.equal(weight, weight.bfloat16().float()), name


def test_dreams_are_learned_from_at_half_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def watched(objective: Objective, config: FitConfig, folder: Path) -> None:
        rates.append(config.learning_rate)

    store = store_that_pays(np.zeros(STEPS))
    video = learn_tokenizer(store, RECIPE, tmp_path / "tokenizer", "cpu")
    monkeypatch.setattr("worldmodel.recipe.fit", watched)
    learn_prior(store, video, dataclasses.replace(RECIPE, dream_steps=2, prior_lr=0.004), tmp_path / "prior")
    assert rates[:2] == [0.004, 0.002]

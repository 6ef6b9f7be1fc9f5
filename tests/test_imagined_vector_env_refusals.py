"""What many dreams in one call do not take: each mistake is one sentence, and leaves all as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import FRAME_SHAPE, N_ACTIONS, N_DREAMS, dreams_of, tiny_world

from worldmodel.errors import UserError
from worldmodel.world import WorldModel


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs": "codes"}, '"latents" or "history"'),
        ({"horizon": 0}, "horizon"),
        ({"temperature": 0.0}, "temperature"),
        ({"num_envs": 0}, "num_envs"),
        ({"num_envs": 1.5}, "num_envs"),
        ({"horizon": float("inf")}, "horizon"),
        ({"render_mode": "human"}, '"rgb_array"'),
    ],
)
def test_settings_that_make_no_sense_are_refused(world: WorldModel, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dreams_of(world, **kwargs)


@pytest.mark.parametrize(
    "options",
    [
        {"reset_mask": [True]},
        {"reset_mask": np.ones(N_DREAMS)},
        {"reset_mask": np.zeros(N_DREAMS, np.bool_)},
        {"frame": np.zeros((N_DREAMS, 1, *FRAME_SHAPE), np.uint8)},
        {"actions": np.zeros((N_DREAMS, 1), np.int64)},
        {"frames": np.zeros((N_DREAMS, 0, *FRAME_SHAPE), np.uint8)},
        {"frames": np.zeros((N_DREAMS, 2, *FRAME_SHAPE))},
        {"frames": np.zeros((N_DREAMS, 2, 84, 84, 3), np.uint8)},
        {"frames": np.zeros((N_DREAMS - 1, 2, *FRAME_SHAPE), np.uint8)},
        {"frames": np.zeros(FRAME_SHAPE, np.uint8)},
        {"frames": np.zeros((N_DREAMS, 2, *FRAME_SHAPE), np.uint8), "actions": np.zeros((N_DREAMS, 2), np.int64)},
        {"frames": np.zeros((N_DREAMS, 2, *FRAME_SHAPE), np.uint8), "actions": np.full((N_DREAMS, 1), 0.5)},
        {"frames": np.zeros((N_DREAMS, 2, *FRAME_SHAPE), np.uint8), "actions": np.full((N_DREAMS, 1), 9)},
    ],
)
def test_options_that_make_no_sense_are_refused_and_change_nothing(world: WorldModel, options: dict[str, Any]) -> None:
    envs = dreams_of(world, obs="latents")
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(UserError):
        envs.reset(seed=9, options=options)
    torch.testing.assert_close(envs.get_state().world.codes, before.world.codes)
    assert envs.get_state().rngs[0].random() == before.rngs[0].random()


@pytest.mark.parametrize("actions", [[0, 0, 0, N_ACTIONS], [0, 0, 0, -1], [0, 0, 0], [0.0, 0.0, 0.0, 0.0], 1])
def test_actions_out_of_range_are_refused(world: WorldModel, actions: Any) -> None:
    envs = dreams_of(world)
    envs.reset(seed=0)
    with pytest.raises(UserError, match="from 0 to 2"):
        envs.step(actions)


def test_a_dream_that_ended_wants_a_reset(world: WorldModel) -> None:
    envs = dreams_of(world, horizon=1, autoreset_mode="Disabled")
    with pytest.raises(UserError, match="not begun"):
        envs.step(np.zeros(N_DREAMS, np.int64))
    envs.reset(seed=0)
    envs.step(np.zeros(N_DREAMS, np.int64))
    with pytest.raises(UserError, match=r"\[0, 1, 2, 3\]"):
        envs.step(np.zeros(N_DREAMS, np.int64))


def test_a_state_of_other_dreams_is_refused(world: WorldModel) -> None:
    envs = dreams_of(world)
    envs.reset(seed=0)
    before, here = envs.get_state(), envs.get_state()
    with pytest.raises(UserError, match="of 4 dreams, and this environment has 2"):
        dreams_of(world, 2).set_state(here)
    other = tiny_world()
    other.video.quantizer.embedding.data.neg_()
    with pytest.raises(UserError, match="another model's"):
        envs.set_state(dreams_of(other).get_state())
    here.world.codes[0, -1] = 999
    with pytest.raises(UserError, match="to 999"):
        envs.set_state(here)
    for action in (-1, N_ACTIONS + 1):
        here = envs.get_state()
        here.world.actions[0, -1] = action
        with pytest.raises(UserError, match="Actions run from 0"):
            envs.set_state(here)
    here = envs.get_state()
    here.rngs.pop()
    with pytest.raises(UserError, match="of 4 dreams"):
        envs.set_state(here)
    for nothing in (None, {"codes": before.world.codes}):
        with pytest.raises(UserError, match="not a"):
            envs.set_state(nothing)  # type: ignore[arg-type]
    torch.testing.assert_close(envs.get_state().world.codes, before.world.codes)


def test_what_is_refused_leaves_the_luck_as_it_was(world: WorldModel) -> None:
    envs = dreams_of(world)
    envs.reset(seed=0)
    before = [rng.bit_generator.state for rng in envs.get_state().rngs]
    for seeds, options in (([4, -1, 2, 3], None), (7, {"frames": [[1], [2, 3]]}), (7, 5), (7, {"frames": np.zeros(3)})):
        with pytest.raises(UserError):
            envs.reset(seed=seeds, options=options)  # type: ignore[arg-type]
    assert [rng.bit_generator.state for rng in envs.get_state().rngs] == before


def test_seeds_must_be_as_many_as_dreams(world: WorldModel) -> None:
    with pytest.raises(UserError, match="4 dreams to seed"):
        dreams_of(world).reset(seed=[1, 2])


def test_a_model_without_starts_wants_frames() -> None:
    world = tiny_world()
    world.contexts = None
    envs = dreams_of(world)
    with pytest.raises(UserError, match="frames"):
        envs.reset(seed=0)
    obs, _ = envs.reset(options={"frames": np.zeros((N_DREAMS, 1, *FRAME_SHAPE), np.uint8)})
    assert obs.shape == (N_DREAMS, *FRAME_SHAPE)


def test_a_step_that_cannot_begin_a_dream_anew_steps_none() -> None:
    world = tiny_world(ends=0.5)
    world.contexts = None
    envs = dreams_of(world)
    envs.reset(seed=0, options={"frames": np.zeros((N_DREAMS, 1, *FRAME_SHAPE), np.uint8)})
    ended = np.zeros(N_DREAMS, np.bool_)
    while not ended.any():
        ended = envs.step(np.zeros(N_DREAMS, np.int64))[2]
    assert not ended.all()
    before = envs.get_state()
    for _ in range(2):
        with pytest.raises(UserError, match="no starts"):
            envs.step(np.zeros(N_DREAMS, np.int64))
    after = envs.get_state()
    assert torch.equal(after.world.codes, before.world.codes)
    np.testing.assert_array_equal(after.steps, before.steps)
    np.testing.assert_array_equal(after.ended, ended)


@pytest.mark.parametrize(
    "frames", [np.full((N_DREAMS, 1, *FRAME_SHAPE), "a"), np.full((N_DREAMS, 1, *FRAME_SHAPE), None)]
)
def test_frames_that_are_no_numbers_are_refused(world: WorldModel, frames: Any) -> None:
    with pytest.raises(UserError, match="arrays of numbers"):
        dreams_of(world).reset(options={"frames": frames})

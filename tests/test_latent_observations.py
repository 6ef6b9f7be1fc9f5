"""What agents see in place of pixels: the same latents of a real world, frame by frame, as of its dream."""

import dataclasses

import numpy as np
import pytest
import torch
from flicker import Flicker, film
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from tiny_world import CODE_SHAPE, N_CODES, tiny_world

from envs.imagined import ImaginedEnv
from envs.imagined_vector import ImaginedVectorEnv
from envs.latents import LatentObservation, LatentStream
from envs.observations import Obs
from worldmodel.errors import UserError
from worldmodel.video import VideoVQVAE
from worldmodel.world import WorldModel

RECENT = 3  # frames of a history


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


def whole_clip(world: WorldModel, frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = world.video.encode(torch.from_numpy(frames)[None])[0].numpy()
    return codes


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_latents_of_a_stream_are_those_of_the_whole_clip(world: WorldModel, memory: int) -> None:
    if memory != world.config.video.memory:
        torch.manual_seed(0)
        config = dataclasses.replace(world.config.video, memory=memory)
        world = tiny_world()
        world.config = dataclasses.replace(world.config, video=config)
        world.video = VideoVQVAE(config).double().eval().requires_grad_(False)
    seen = LatentObservation(Flicker(), world)
    for seed in (1, 2):  # nothing of the first episode is left in the second
        codes = whole_clip(world, film(Flicker(), seed))
        assert len(np.unique(codes, axis=0)) > 5
        np.testing.assert_array_equal(film(seen, seed), codes)


def test_a_history_is_the_newest_latents_and_the_first_frame_its_own_past(world: WorldModel) -> None:
    codes = whole_clip(world, film(Flicker(), 3))
    seen = film(LatentObservation(Flicker(), world, "history"), 3)
    assert seen.shape == (10, RECENT, *CODE_SHAPE)
    for t, history in enumerate(seen):
        np.testing.assert_array_equal(history, codes[[max(t - 2, 0), max(t - 1, 0), t]])


def test_a_history_in_the_real_world_is_that_of_a_dream_told_the_same(world: WorldModel) -> None:
    frames = film(Flicker(), 4, steps=4)
    stream = LatentStream(world, "history")
    seen = [stream.begin(frames[0]), *map(stream.go_on, frames[1:])]
    for t in range(len(frames)):
        given, _ = ImaginedEnv(world, obs="history").reset(options={"frames": frames[: t + 1]})
        np.testing.assert_array_equal(seen[t], given)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped")
@pytest.mark.parametrize("obs", ["latents", "history"])
def test_an_environment_of_latents_passes_gymnasiums_check(world: WorldModel, obs: Obs) -> None:
    env = LatentObservation(Flicker(reuse=False), world, obs)
    assert env.observation_space == ImaginedEnv(world, obs=obs).observation_space
    check_env(env, skip_render_check=True)


def test_what_a_stream_returned_never_changes(world: WorldModel) -> None:
    for obs in ("latents", "history"):
        env = LatentObservation(Flicker(), world, obs)  # type: ignore[arg-type]
        kept = [env.reset(seed=0)[0], *(env.step(np.int64(0))[0] for _ in range(5))]
        for now, then in zip(kept, film(LatentObservation(Flicker(), world, obs), 0, 5), strict=True):  # type: ignore[arg-type]
            np.testing.assert_array_equal(now, then)


def test_frames_of_another_size_are_refused(world: WorldModel) -> None:
    with pytest.raises(UserError, match=r"\[42, 42, 3\].*\[28, 42, 3\]"):
        LatentObservation(Flicker((28, 42, 3)), world)
    with pytest.raises(UserError, match="codes"):
        LatentObservation(Flicker(), world, "codes")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_a_dreams_history_is_the_end_of_its_state(world: WorldModel, mode: AutoresetMode) -> None:
    envs = ImaginedVectorEnv(world, 4, obs="history", horizon=5, autoreset_mode=mode)
    latents = ImaginedVectorEnv(world, 4, obs="latents", horizon=5, autoreset_mode=mode)
    assert envs.single_observation_space == spaces.Box(0, N_CODES - 1, (RECENT, *CODE_SHAPE), np.int64)
    seen, newest = envs.reset(seed=0)[0], latents.reset(seed=0)[0]
    ends = 0
    for _ in range(15):
        assert seen in envs.observation_space
        np.testing.assert_array_equal(seen, envs.get_state().world.codes[:, -RECENT:].numpy())
        np.testing.assert_array_equal(seen[:, -1], newest)
        before, actions = seen, np.zeros(4, np.int64)
        seen, _, terminated, truncated, info = envs.step(actions)
        newest, _, _, _, told = latents.step(actions)
        ended = terminated | truncated
        ends += ended.sum()
        if mode is AutoresetMode.SAME_STEP:
            for row in np.flatnonzero(ended):
                np.testing.assert_array_equal(info["final_obs"][row][:-1], before[row][1:])
                np.testing.assert_array_equal(info["final_obs"][row][-1], told["final_obs"][row])
        elif mode is AutoresetMode.DISABLED and ended.any():
            options = {"reset_mask": ended}
            before = seen
            seen, newest = envs.reset(options=dict(options))[0], latents.reset(options=dict(options))[0]
            np.testing.assert_array_equal(seen[~ended], before[~ended])
    assert ends > 3

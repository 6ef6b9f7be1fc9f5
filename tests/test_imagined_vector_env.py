"""Many dreams in one call are, to whoever steps them, what Gymnasium makes of as many single ones."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import CODE_SHAPE, FRAME_SHAPE, N_ACTIONS, N_CODES, N_DREAMS, STARTS, dreams_of, tiny_world

from worldmodel.errors import UserError
from worldmodel.state import generators
from worldmodel.world import WorldModel

ID = "envs:worldmodel/Imagined-v0"


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal in structure, type and value, but for the last digits of a float."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for mine, its in zip(ours, theirs, strict=True):
            assert_same(mine, its)
    elif isinstance(ours, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype == object:
            assert_same(tuple(ours), tuple(theirs))
        elif ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours is theirs is None


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("obs", ["pixels", "latents"])
def test_every_step_is_that_of_gymnasiums_own_vector_of_single_dreams(
    world: WorldModel, obs: str, mode: AutoresetMode
) -> None:
    kwargs: dict[str, Any] = {"obs": obs, "horizon": 6, "temperature": 1.3}
    ours: VectorEnv = dreams_of(world, autoreset_mode=mode, **kwargs)
    theirs = gymnasium.make_vec(ID, N_DREAMS, "sync", vector_kwargs={"autoreset_mode": mode}, model=world, **kwargs)
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=7), theirs.reset(seed=7))
    rng, ends = np.random.default_rng(0), np.zeros(2, int)
    for _ in range(40):
        actions = rng.integers(N_ACTIONS, size=N_DREAMS)
        result = ours.step(actions)
        assert_same(result, theirs.step(actions))
        assert result[0] in ours.observation_space
        terminated, truncated = result[2:4]
        ends += terminated.sum(), truncated.sum()
        mask = terminated | truncated
        if mode is AutoresetMode.DISABLED and mask.any():
            assert_same(ours.reset(options={"reset_mask": mask}), theirs.reset(options={"reset_mask": mask}))
    assert (ends > 3).all()  # dreams ended in both ways


@settings(max_examples=15)
@given(
    masks=st.lists(st.lists(st.booleans(), min_size=N_DREAMS, max_size=N_DREAMS).filter(any), min_size=1, max_size=4),
    seeds=st.lists(st.none() | st.integers(0, 99), min_size=N_DREAMS, max_size=N_DREAMS),
)
def test_a_reset_touches_the_rows_of_its_mask_alone(masks: list[list[bool]], seeds: list[int | None]) -> None:
    world = tiny_world()
    ours = dreams_of(world, obs="latents", autoreset_mode="Disabled", horizon=3)
    theirs = gymnasium.make_vec(
        ID, N_DREAMS, "sync", vector_kwargs={"autoreset_mode": "Disabled"}, model=world, obs="latents", horizon=3
    )
    assert_same(ours.reset(seed=1), theirs.reset(seed=1))
    for mask in masks:
        actions = np.arange(N_DREAMS) % N_ACTIONS
        result = ours.step(actions)
        assert_same(result, theirs.step(actions))
        rows = np.array(mask) | result[2] | result[3]
        options = {"reset_mask": rows}
        assert_same(
            ours.reset(seed=list(seeds), options=options), theirs.reset(seed=list(seeds), options=dict(options))
        )
        assert options.keys() == {"reset_mask"}  # the caller's options are the caller's


def test_the_dream_is_the_models_own() -> None:
    world = tiny_world(ends=0.0)
    envs = dreams_of(world, temperature=0.7)
    obs, _ = envs.reset(seed=3)
    rngs = generators(3, N_DREAMS)
    assert world.contexts is not None
    starts = [int(rng.integers(STARTS)) for rng in rngs]
    state = world.observe_codes(world.contexts.codes[starts], world.contexts.actions[starts])
    np.testing.assert_array_equal(obs, world.render(state))
    for t in range(20):
        action = np.full(N_DREAMS, t % N_ACTIONS)
        obs, rewards, terminated, _, info = envs.step(action)
        step = world.step(state, torch.from_numpy(action), rngs=rngs, temperature=0.7)
        state = step.state
        np.testing.assert_array_equal(obs, world.render(state))
        np.testing.assert_array_equal(rewards, step.reward.numpy())
        np.testing.assert_array_equal(terminated, step.terminated.numpy())
        np.testing.assert_array_equal(info["log_prob"], step.log_prob.numpy())


def test_a_dream_starts_after_the_frames_it_is_given(world: WorldModel) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(N_DREAMS, 3, *FRAME_SHAPE), dtype=np.uint8)
    actions = rng.integers(N_ACTIONS, size=(N_DREAMS, 2))
    envs = dreams_of(world, autoreset_mode="Disabled")
    before, _ = envs.reset(seed=0)

    mask = np.array([True, False, True, False])
    obs, _ = envs.reset(options={"frames": frames, "actions": actions, "reset_mask": mask})
    state = world.observe(torch.from_numpy(frames), torch.from_numpy(actions))
    np.testing.assert_array_equal(obs[mask], world.render(state)[mask])
    np.testing.assert_array_equal(obs[~mask], before[~mask])

    envs.reset(options={"frames": frames})
    untold = world.observe(torch.from_numpy(frames), torch.full((N_DREAMS, 2), world.no_action))
    assert torch.equal(envs.get_state().world.codes, untold.codes)
    assert torch.equal(envs.get_state().world.actions, untold.actions)
    assert not torch.equal(untold.actions, state.actions)


def test_latents_are_never_drawn(world: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "render", None)
    envs = dreams_of(world, obs="latents", autoreset_mode="SameStep", horizon=2)
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (N_DREAMS, *CODE_SHAPE) and obs.dtype == np.int64
    for _ in range(5):
        obs = envs.step(np.zeros(N_DREAMS, np.int64))[0]
        assert 0 <= obs.min() <= obs.max() < N_CODES


def test_what_was_returned_never_changes(world: WorldModel) -> None:
    for obs in ("pixels", "latents"):
        envs = dreams_of(world, obs=obs, autoreset_mode="SameStep", horizon=2, render_mode="rgb_array")
        kept, copies = [envs.reset(seed=0)[0]], list[np.ndarray]()
        for _ in range(6):
            result = envs.step(np.ones(N_DREAMS, np.int64))
            frames = envs.render()
            assert frames is not None
            kept += [*result[:4], *frames, *(o for o in result[4].get("final_obs", ()) if o is not None)]
            copies += [array.copy() for array in kept[len(copies) :]]
        envs.reset()
        for array, copy in zip(kept, copies, strict=False):
            np.testing.assert_array_equal(array, copy)
        state = envs.get_state()
        kept[0][...] = 1  # nor does it matter to the dream what becomes of it
        torch.testing.assert_close(state.world.codes, envs.get_state().world.codes)


def test_a_restored_dream_repeats_itself(world: WorldModel) -> None:
    envs = dreams_of(world, horizon=5, autoreset_mode="SameStep")
    envs.reset(seed=0)
    envs.step(np.zeros(N_DREAMS, np.int64))
    here = envs.get_state()
    actions = np.random.default_rng(0).integers(N_ACTIONS, size=(12, N_DREAMS))
    first = [envs.step(a) for a in actions]
    elsewhere = dreams_of(world, horizon=5, autoreset_mode="SameStep")
    for other in (envs, elsewhere, envs):
        other.set_state(here)
        assert_same(tuple(other.step(a) for a in actions), tuple(first))


def test_restoring_returns_the_present_observation(world: WorldModel) -> None:
    envs = dreams_of(world)
    obs, _ = envs.reset(seed=0)
    here = envs.get_state()
    envs.step(np.zeros(N_DREAMS, np.int64))
    np.testing.assert_array_equal(envs.set_state(here), obs)


def test_there_is_no_branch_where_nothing_goes_on() -> None:
    envs = dreams_of(tiny_world(ends=0.0), horizon=1)
    for _ in range(2):
        with pytest.raises(UserError, match="have ended, or not begun"):
            envs.branch(2)
        envs.reset(seed=0)
        envs.step(np.zeros(N_DREAMS, np.int64))


def test_branches_share_the_present_and_part_by_luck_and_action() -> None:
    envs = dreams_of(tiny_world(ends=0.0), obs="latents", temperature=10.0)
    envs.reset(seed=0)
    obs = envs.step(np.zeros(N_DREAMS, np.int64))[0]
    before = envs.get_state()
    branches = envs.branch(3, seed=5)
    state = branches.get_state()
    assert branches.num_envs == 3 * N_DREAMS
    np.testing.assert_array_equal(state.world.codes[:, -1], obs.repeat(3, 0))
    np.testing.assert_array_equal(state.steps, np.ones(3 * N_DREAMS))

    actions = np.zeros(3 * N_DREAMS, np.int64)
    onward = branches.step(actions)
    assert len(np.unique(onward[0], axis=0)) == 3 * N_DREAMS  # each with luck of its own
    assert_same(envs.branch(3, seed=5).step(actions), onward)  # the same luck again
    unlike = envs.branch(3, seed=5).step(actions + 1)
    assert (unlike[0] != onward[0]).any()

    after = envs.get_state()
    torch.testing.assert_close(after.world.codes, before.world.codes)
    assert torch.equal(after.world.actions, before.world.actions)
    assert [r.bit_generator.state for r in after.rngs] == [r.bit_generator.state for r in before.rngs]


def test_frames_are_rendered_whatever_is_observed(world: WorldModel) -> None:
    pictures = []
    for obs in ("pixels", "latents"):
        envs = dreams_of(world, obs=obs, render_mode="rgb_array")
        envs.reset(seed=0)
        observed = envs.step(np.zeros(N_DREAMS, np.int64))[0]
        frames = envs.render()
        assert frames is not None and len(frames) == N_DREAMS
        pictures.append(np.stack(frames))
        if obs == "pixels":
            np.testing.assert_array_equal(pictures[-1], observed)
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].dtype == np.uint8
    assert dreams_of(world).render() is None


def test_gymnasiums_vector_wrappers_fit(world: WorldModel) -> None:
    envs = RecordEpisodeStatistics(dreams_of(world, horizon=4))
    envs.reset(seed=0)
    lengths = []
    for _ in range(12):
        info = envs.step(envs.action_space.sample())[4]
        lengths += list(info["episode"]["l"][info["_episode"]]) if "episode" in info else []
    assert len(lengths) >= N_DREAMS and min(lengths) >= 1 and max(lengths) <= 4


def test_seeds_are_whole_numbers_of_any_kind(world: WorldModel) -> None:
    envs = dreams_of(world)
    first = envs.reset(seed=4)[0]
    for seeds in (np.int64(4), np.arange(4, 4 + N_DREAMS), [np.uint8(4 + i) for i in range(N_DREAMS)]):
        np.testing.assert_array_equal(envs.reset(seed=seeds)[0], first)
    for seed in (1.5, "1", [0.5] * N_DREAMS):
        with pytest.raises(UserError, match="whole numbers"):
            envs.reset(seed=seed)  # type: ignore[arg-type]
    still = np.zeros(2 * N_DREAMS, np.int64)
    left, right = (envs.branch(2, seed=seed).step(still)[0] for seed in (np.int64(3), 3))
    np.testing.assert_array_equal(left, right)


def test_gymnasium_may_give_each_dream_a_process_of_its_own(world: WorldModel, tmp_path: Path) -> None:
    """Forked while torch has a pool of threads, which the fork does not inherit: it would wait for them forever."""
    world.save_pretrained(tmp_path / "model")
    code = (
        "import gymnasium, numpy as np\n"
        f"envs = gymnasium.make_vec('envs:worldmodel/Imagined-v0', 2, 'async', model={str(tmp_path / 'model')!r})\n"
        "envs.reset(seed=0)\nprint(envs.step(np.array([0, 1]))[0].shape)\nenvs.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0 and "(2, 42, 42, 3)" in done.stdout, done.stderr

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
from tiny_world import CODE_SHAPE, FRAME_SHAPE, N_ACTIONS, N_CODES, STARTS, tiny_world

from envs.imagined_vector import ImaginedVectorEnv
from worldmodel.errors import UserError
from worldmodel.state import generators
from worldmodel.world import WorldModel

ID = "envs:worldmodel/Imagined-v0"
N = 4


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


def make(world: WorldModel, num_envs: int = N, **kwargs: Any) -> ImaginedVectorEnv:
    envs = gymnasium.make_vec(ID, num_envs, "vector_entry_point", model=world, **kwargs)
    assert isinstance(envs, ImaginedVectorEnv)
    return envs


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
    ours: VectorEnv = make(world, autoreset_mode=mode, **kwargs)
    theirs = gymnasium.make_vec(ID, N, "sync", vector_kwargs={"autoreset_mode": mode}, model=world, **kwargs)
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=7), theirs.reset(seed=7))
    rng, ends = np.random.default_rng(0), np.zeros(2, int)
    for _ in range(40):
        actions = rng.integers(N_ACTIONS, size=N)
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
    masks=st.lists(st.lists(st.booleans(), min_size=N, max_size=N).filter(any), min_size=1, max_size=4),
    seeds=st.lists(st.none() | st.integers(0, 99), min_size=N, max_size=N),
)
def test_a_reset_touches_the_rows_of_its_mask_alone(masks: list[list[bool]], seeds: list[int | None]) -> None:
    world = tiny_world()
    ours = make(world, obs="latents", autoreset_mode="Disabled", horizon=3)
    theirs = gymnasium.make_vec(
        ID, N, "sync", vector_kwargs={"autoreset_mode": "Disabled"}, model=world, obs="latents", horizon=3
    )
    assert_same(ours.reset(seed=1), theirs.reset(seed=1))
    for mask in masks:
        actions = np.arange(N) % N_ACTIONS
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
    envs = make(world, temperature=0.7)
    obs, _ = envs.reset(seed=3)
    rngs = generators(3, N)
    assert world.contexts is not None
    starts = [int(rng.integers(STARTS)) for rng in rngs]
    state = world.observe_codes(world.contexts.codes[starts], world.contexts.actions[starts])
    np.testing.assert_array_equal(obs, world.render(state))
    for t in range(20):
        action = np.full(N, t % N_ACTIONS)
        obs, rewards, terminated, _, info = envs.step(action)
        step = world.step(state, torch.from_numpy(action), rngs=rngs, temperature=0.7)
        state = step.state
        np.testing.assert_array_equal(obs, world.render(state))
        np.testing.assert_array_equal(rewards, step.reward.numpy())
        np.testing.assert_array_equal(terminated, step.terminated.numpy())
        np.testing.assert_array_equal(info["log_prob"], step.log_prob.numpy())


def test_a_dream_starts_after_the_frames_it_is_given(world: WorldModel) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(N, 3, *FRAME_SHAPE), dtype=np.uint8)
    actions = rng.integers(N_ACTIONS, size=(N, 2))
    envs = make(world, autoreset_mode="Disabled")
    before, _ = envs.reset(seed=0)

    mask = np.array([True, False, True, False])
    obs, _ = envs.reset(options={"frames": frames, "actions": actions, "reset_mask": mask})
    state = world.observe(torch.from_numpy(frames), torch.from_numpy(actions))
    np.testing.assert_array_equal(obs[mask], world.render(state)[mask])
    np.testing.assert_array_equal(obs[~mask], before[~mask])

    envs.reset(options={"frames": frames})
    untold = world.observe(torch.from_numpy(frames), torch.full((N, 2), world.no_action))
    assert torch.equal(envs.get_state().world.codes, untold.codes)
    assert torch.equal(envs.get_state().world.actions, untold.actions)
    assert not torch.equal(untold.actions, state.actions)


def test_latents_are_never_drawn(world: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "render", None)
    envs = make(world, obs="latents", autoreset_mode="SameStep", horizon=2)
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (N, *CODE_SHAPE) and obs.dtype == np.int64
    for _ in range(5):
        obs = envs.step(np.zeros(N, np.int64))[0]
        assert 0 <= obs.min() <= obs.max() < N_CODES


def test_what_was_returned_never_changes(world: WorldModel) -> None:
    for obs in ("pixels", "latents"):
        envs = make(world, obs=obs, autoreset_mode="SameStep", horizon=2, render_mode="rgb_array")
        kept, copies = [envs.reset(seed=0)[0]], list[np.ndarray]()
        for _ in range(6):
            result = envs.step(np.ones(N, np.int64))
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
    envs = make(world, horizon=5, autoreset_mode="SameStep")
    envs.reset(seed=0)
    envs.step(np.zeros(N, np.int64))
    here = envs.get_state()
    actions = np.random.default_rng(0).integers(N_ACTIONS, size=(12, N))
    first = [envs.step(a) for a in actions]
    elsewhere = make(world, horizon=5, autoreset_mode="SameStep")
    for other in (envs, elsewhere, envs):
        other.set_state(here)
        assert_same(tuple(other.step(a) for a in actions), tuple(first))


def test_restoring_returns_the_present_observation(world: WorldModel) -> None:
    envs = make(world)
    obs, _ = envs.reset(seed=0)
    here = envs.get_state()
    envs.step(np.zeros(N, np.int64))
    np.testing.assert_array_equal(envs.set_state(here), obs)


def test_there_is_no_branch_where_nothing_goes_on() -> None:
    envs = make(tiny_world(ends=0.0), horizon=1)
    for _ in range(2):
        with pytest.raises(UserError, match="have ended, or not begun"):
            envs.branch(2)
        envs.reset(seed=0)
        envs.step(np.zeros(N, np.int64))


def test_branches_share_the_present_and_part_by_luck_and_action() -> None:
    envs = make(tiny_world(ends=0.0), obs="latents", temperature=10.0)
    envs.reset(seed=0)
    obs = envs.step(np.zeros(N, np.int64))[0]
    before = envs.get_state()
    branches = envs.branch(3, seed=5)
    state = branches.get_state()
    assert branches.num_envs == 3 * N
    np.testing.assert_array_equal(state.world.codes[:, -1], obs.repeat(3, 0))
    np.testing.assert_array_equal(state.steps, np.ones(3 * N))

    actions = np.zeros(3 * N, np.int64)
    onward = branches.step(actions)
    assert len(np.unique(onward[0], axis=0)) == 3 * N  # each with luck of its own
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
        envs = make(world, obs=obs, render_mode="rgb_array")
        envs.reset(seed=0)
        observed = envs.step(np.zeros(N, np.int64))[0]
        frames = envs.render()
        assert frames is not None and len(frames) == N
        pictures.append(np.stack(frames))
        if obs == "pixels":
            np.testing.assert_array_equal(pictures[-1], observed)
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].dtype == np.uint8
    assert make(world).render() is None


def test_gymnasiums_vector_wrappers_fit(world: WorldModel) -> None:
    envs = RecordEpisodeStatistics(make(world, horizon=4))
    envs.reset(seed=0)
    lengths = []
    for _ in range(12):
        info = envs.step(envs.action_space.sample())[4]
        lengths += list(info["episode"]["l"][info["_episode"]]) if "episode" in info else []
    assert len(lengths) >= N and min(lengths) >= 1 and max(lengths) <= 4


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
        make(world, **kwargs)


@pytest.mark.parametrize(
    "options",
    [
        {"reset_mask": [True]},
        {"reset_mask": np.ones(N)},
        {"reset_mask": np.zeros(N, np.bool_)},
        {"frame": np.zeros((N, 1, *FRAME_SHAPE), np.uint8)},
        {"actions": np.zeros((N, 1), np.int64)},
        {"frames": np.zeros((N, 0, *FRAME_SHAPE), np.uint8)},
        {"frames": np.zeros((N, 2, *FRAME_SHAPE))},
        {"frames": np.zeros((N, 2, 84, 84, 3), np.uint8)},
        {"frames": np.zeros((N - 1, 2, *FRAME_SHAPE), np.uint8)},
        {"frames": np.zeros(FRAME_SHAPE, np.uint8)},
        {"frames": np.zeros((N, 2, *FRAME_SHAPE), np.uint8), "actions": np.zeros((N, 2), np.int64)},
        {"frames": np.zeros((N, 2, *FRAME_SHAPE), np.uint8), "actions": np.full((N, 1), 0.5)},
        {"frames": np.zeros((N, 2, *FRAME_SHAPE), np.uint8), "actions": np.full((N, 1), 9)},
    ],
)
def test_options_that_make_no_sense_are_refused_and_change_nothing(world: WorldModel, options: dict[str, Any]) -> None:
    envs = make(world, obs="latents")
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(UserError):
        envs.reset(seed=9, options=options)
    torch.testing.assert_close(envs.get_state().world.codes, before.world.codes)
    assert envs.get_state().rngs[0].random() == before.rngs[0].random()


@pytest.mark.parametrize("actions", [[0, 0, 0, N_ACTIONS], [0, 0, 0, -1], [0, 0, 0], [0.0, 0.0, 0.0, 0.0], 1])
def test_actions_out_of_range_are_refused(world: WorldModel, actions: Any) -> None:
    envs = make(world)
    envs.reset(seed=0)
    with pytest.raises(UserError, match="from 0 to 2"):
        envs.step(actions)


def test_a_dream_that_ended_wants_a_reset(world: WorldModel) -> None:
    envs = make(world, horizon=1, autoreset_mode="Disabled")
    with pytest.raises(UserError, match="not begun"):
        envs.step(np.zeros(N, np.int64))
    envs.reset(seed=0)
    envs.step(np.zeros(N, np.int64))
    with pytest.raises(UserError, match=r"\[0, 1, 2, 3\]"):
        envs.step(np.zeros(N, np.int64))


def test_a_state_of_other_dreams_is_refused(world: WorldModel) -> None:
    envs = make(world)
    envs.reset(seed=0)
    before, here = envs.get_state(), envs.get_state()
    with pytest.raises(UserError, match="of 4 dreams, and this environment has 2"):
        make(world, 2).set_state(here)
    other = tiny_world()
    other.video.quantizer.embedding.data.neg_()
    with pytest.raises(UserError, match="another model's"):
        envs.set_state(make(other).get_state())
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
    envs = make(world)
    envs.reset(seed=0)
    before = [rng.bit_generator.state for rng in envs.get_state().rngs]
    for seeds, options in (([4, -1, 2, 3], None), (7, {"frames": [[1], [2, 3]]}), (7, 5), (7, {"frames": np.zeros(3)})):
        with pytest.raises(UserError):
            envs.reset(seed=seeds, options=options)  # type: ignore[arg-type]
    assert [rng.bit_generator.state for rng in envs.get_state().rngs] == before


def test_seeds_must_be_as_many_as_dreams(world: WorldModel) -> None:
    with pytest.raises(UserError, match="4 dreams to seed"):
        make(world).reset(seed=[1, 2])


def test_a_model_without_starts_wants_frames() -> None:
    world = tiny_world()
    world.contexts = None
    envs = make(world)
    with pytest.raises(UserError, match="frames"):
        envs.reset(seed=0)
    obs, _ = envs.reset(options={"frames": np.zeros((N, 1, *FRAME_SHAPE), np.uint8)})
    assert obs.shape == (N, *FRAME_SHAPE)


def test_a_step_that_cannot_begin_a_dream_anew_steps_none() -> None:
    world = tiny_world(ends=0.5)
    world.contexts = None
    envs = make(world)
    envs.reset(seed=0, options={"frames": np.zeros((N, 1, *FRAME_SHAPE), np.uint8)})
    ended = np.zeros(N, np.bool_)
    while not ended.any():
        ended = envs.step(np.zeros(N, np.int64))[2]
    assert not ended.all()
    before = envs.get_state()
    for _ in range(2):
        with pytest.raises(UserError, match="no starts"):
            envs.step(np.zeros(N, np.int64))
    after = envs.get_state()
    assert torch.equal(after.world.codes, before.world.codes)
    np.testing.assert_array_equal(after.steps, before.steps)
    np.testing.assert_array_equal(after.ended, ended)


def test_seeds_are_whole_numbers_of_any_kind(world: WorldModel) -> None:
    envs = make(world)
    first = envs.reset(seed=4)[0]
    for seeds in (np.int64(4), np.arange(4, 4 + N), [np.uint8(4 + i) for i in range(N)]):
        np.testing.assert_array_equal(envs.reset(seed=seeds)[0], first)
    for seed in (1.5, "1", [0.5] * N):
        with pytest.raises(UserError, match="whole numbers"):
            envs.reset(seed=seed)  # type: ignore[arg-type]
    still = np.zeros(2 * N, np.int64)
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

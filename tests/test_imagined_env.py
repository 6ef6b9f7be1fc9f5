"""A dream is a Gymnasium environment like any other."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tiny_world import CODE_SHAPE, FRAME_SHAPE, N_ACTIONS, N_CODES, tiny_world

from envs.imagined import ImaginedEnv
from worldmodel.errors import UserError
from worldmodel.world import WorldModel

ID = "envs:worldmodel/Imagined-v0"
Transition = tuple[Any, float, bool, bool, dict[str, Any]]


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_world(ends=0.0).save_pretrained(folder)
    return folder


def make(model: WorldModel | Path, **kwargs: Any) -> ImaginedEnv:
    env = gymnasium.make(ID, model=model, **kwargs).unwrapped
    assert isinstance(env, ImaginedEnv)
    return env


def play(env: ImaginedEnv, actions: list[int]) -> list[Transition]:
    return [env.step(np.int64(action)) for action in actions]


def assert_same(left: list[Transition], right: list[Transition]) -> None:
    for mine, its in zip(left, right, strict=True):
        np.testing.assert_array_equal(mine[0], its[0])
        assert mine[1:] == its[1:]


@pytest.mark.parametrize("obs", ["pixels", "latents"])
def test_gymnasiums_checker_has_no_complaint(folder: Path, obs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # it opens the window too
    env = make(folder, obs=obs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


@pytest.mark.parametrize(("obs", "advice"), [("pixels", []), ("latents", ["unconventional shape"])])
def test_stable_baselines_checker_has_no_complaint_and_at_most_advice(
    world: WorldModel, obs: str, advice: list[str]
) -> None:
    """Of codes it says what is true: they are no image, and want a features extractor that embeds them."""
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="the extra [agents] is not installed")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker.check_env(make(world, obs=obs, render_mode="rgb_array"), skip_render_check=False)
    assert len(caught) == len(advice)
    assert all(word in str(warning.message) for word, warning in zip(advice, caught, strict=True))


def test_gymnasium_alone_finds_it(folder: Path) -> None:
    code = f"import gymnasium; print(gymnasium.make({ID!r}, model={str(folder)!r}).reset(seed=0)[0].shape)"
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(FRAME_SHAPE)


def test_spaces_speed_and_names_are_the_models(world: WorldModel) -> None:
    env = make(world, obs="latents")
    assert env.observation_space == gymnasium.spaces.Box(0, N_CODES - 1, CODE_SHAPE, np.int64)
    assert make(world).observation_space == gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(N_ACTIONS)
    assert env.metadata["render_fps"] == 15
    assert env.get_action_meanings() == ["left", "right", "stay"]


def test_the_same_seed_is_the_same_dream_whatever_came_before(folder: Path) -> None:
    env, other = make(folder, dtype=torch.float64), make(folder, dtype=torch.float64)
    actions = [0, 1, 2, 1]

    def dream(env: ImaginedEnv, seed: int) -> list[Transition]:
        start = env.reset(seed=seed)[0]
        return [(start, 0.0, False, False, {}), *play(env, actions)]

    first = dream(env, 1)
    different = dream(env, 2)
    assert_same(dream(env, 1), first)
    assert_same(dream(other, 1), first)
    assert any((mine[0] != its[0]).any() for mine, its in zip(first, different, strict=True))


def test_a_later_reset_goes_on_with_the_generator(world: WorldModel) -> None:
    env = make(world, obs="latents")
    starts = [env.reset(seed=0)[0], *(env.reset()[0] for _ in range(20))]
    again = [env.reset(seed=0)[0], *(env.reset()[0] for _ in range(20))]
    np.testing.assert_array_equal(starts, again)
    assert len(np.unique(starts, axis=0)) > 1


def test_the_horizon_truncates() -> None:
    env = make(tiny_world(ends=0.0), horizon=3)
    env.reset(seed=0)
    assert [step[2:4] for step in play(env, [0, 0, 0])] == [(False, False), (False, False), (False, True)]
    with pytest.raises(UserError, match="have ended"):
        env.step(np.int64(0))


def test_the_model_terminates() -> None:
    env = make(tiny_world(ends=1.0), horizon=3)
    env.reset(seed=0)
    assert play(env, [0])[0][2:4] == (True, False)


def test_a_dream_starts_after_the_frames_it_is_given(world: WorldModel) -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, *FRAME_SHAPE), dtype=np.uint8)
    actions = np.array([2, 0])
    env = make(world)
    obs, _ = env.reset(seed=0, options={"frames": frames, "actions": actions})
    state = world.observe(torch.from_numpy(frames[None]), torch.from_numpy(actions[None]))
    np.testing.assert_array_equal(obs, world.render(state)[0])
    assert torch.equal(env.get_state().world.codes, state.codes)
    assert torch.equal(env.get_state().world.actions, state.actions)


def test_a_restored_dream_repeats_itself(world: WorldModel) -> None:
    env = make(world)
    obs, _ = env.reset(seed=4)
    here = env.get_state()
    first = env.step(np.int64(1))
    env.reset(seed=5)
    np.testing.assert_array_equal(env.set_state(here), obs)
    assert_same([env.step(np.int64(1))], [first])
    assert env.np_random.bit_generator.state != here.rngs[0].bit_generator.state  # the dream's is Gymnasium's


def test_a_reset_that_is_refused_leaves_the_luck_as_it_was(world: WorldModel) -> None:
    env = make(world)
    env.reset(seed=4)
    before = env.get_state().rngs[0].bit_generator.state
    for options in ({"frames": np.zeros((3, 3))}, [1], {"frames": [[1], [2, 3]]}):
        with pytest.raises(UserError):
            env.reset(seed=99, options=options)  # type: ignore[arg-type]
    assert env.get_state().rngs[0].bit_generator.state == env.np_random.bit_generator.state == before


def test_a_branch_goes_on_a_whole_number_of_times(world: WorldModel) -> None:
    for n in (0, 1.5, "a"):
        with pytest.raises(UserError, match="once or more"):
            make(world).branch(n)  # type: ignore[arg-type]


def test_branching_is_for_planning(world: WorldModel) -> None:
    env = make(world, obs="latents", horizon=8)
    obs, _ = env.reset(seed=0)
    plans = env.branch(6, seed=1)
    np.testing.assert_array_equal(plans.get_state().world.codes[:, -1], np.stack([obs] * 6))
    alive, returns = np.ones(6, np.bool_), np.zeros(6)
    for _ in range(8):
        _, rewards, terminated, truncated, _ = plans.step(plans.action_space.sample())
        returns += alive * rewards
        alive &= ~(terminated | truncated)
    assert not alive.any()
    np.testing.assert_array_equal(env.get_state().world.codes[0, -1], obs)


@pytest.mark.parametrize("obs", ["pixels", "latents"])
def test_rendering_shows_the_present_frame(world: WorldModel, obs: str) -> None:
    env = make(world, obs=obs, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.int64(0))
    np.testing.assert_array_equal(env.render(), world.render(env.get_state().world)[0])
    assert make(world).render() is None


def test_a_person_can_watch(world: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame", reason="pygame is not installed")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make(world, render_mode="human")
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.int64(0))
        screen = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        scale = screen.shape[0] // FRAME_SHAPE[0]
        assert scale > 1
        np.testing.assert_array_equal(screen[::scale, ::scale], world.render(env.get_state().world)[0])
        env.reset()
    assert env.render() is None
    env.close()
    assert not pygame.display.get_init()


def test_without_pygame_watching_says_what_to_install(world: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match="pip install pygame-ce"):
        make(world, render_mode="human")


@pytest.mark.parametrize("action", [N_ACTIONS, -1, 0.5])
def test_an_action_out_of_range_is_refused(world: WorldModel, action: Any) -> None:
    env = make(world)
    env.reset(seed=0)
    with pytest.raises(UserError, match="from 0 to 2"):
        env.step(action)


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="no-such-model"):
        make(Path("no-such-model"))

"""Does a vector environment keep what learners count on? A check for anybody's, `check_vec_env`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv


def check_vec_env(make: Callable[[], VecEnv], *, steps: int = 500, seed: int = 0) -> None:
    """Play `steps` random steps; raise an `AssertionError` that says in one sentence what is wrong, if anything is.

    `make()` returns a new Stable-Baselines3 `VecEnv` of N rows each time, with discrete actions and observations that
    are arrays, and with episodes short enough that some end within `steps`. What is checked:

    - observations, those of resets and `terminal_observation`s included, have the shape and the dtype of the space and
      lie in it, and none is a buffer that the next step writes into;
    - rewards are float32 [N], dones bool [N], infos a list of N dicts;
    - a row that ended has `terminal_observation` and says in `TimeLimit.truncated`, a bool, whether it was cut short;
      one that goes on has no `terminal_observation` and was not cut short;
    - the same seed and the same actions bring the same observations, rewards and ends, in two environments;
    - `get_attr` and `env_method` return one value for each row that was asked for.
    """
    env, twin = make(), make()
    try:
        _check_attributes(env)
        n_actions = _count_actions(env)
        env.seed(seed)
        twin.seed(seed)
        observations: Any = env.reset()
        _check_observations(observations, env, "reset()")
        _check_infos(env.reset_infos, env, "reset_infos")
        _assert_same(observations, twin.reset(), "first observations")
        rng, ends = np.random.default_rng(seed), 0
        for _ in range(steps):
            actions, kept = rng.integers(n_actions, size=env.num_envs), observations.copy()
            before = observations
            observations, rewards, dones, infos = env.step(actions)
            # Learners store the observation that they acted on only after the step.
            assert np.array_equal(before, kept), "A step changed the observations returned before it; return copies."
            _check_step(env, observations, rewards, dones, infos)
            ends += int(dones.sum())
            for name, ours, theirs in zip(
                ("observations", "rewards", "dones"),
                (observations, rewards, dones),
                twin.step(actions)[:3],
                strict=True,
            ):
                _assert_same(ours, theirs, name)
        assert ends, f"No episode ended within {steps} steps, so ends were not checked; make episodes shorter."
    finally:
        env.close()
        twin.close()


def _check_step(env: VecEnv, observations: Any, rewards: Any, dones: Any, infos: Any) -> None:
    _check_observations(observations, env, "step()")
    for name, array, dtype in (("Rewards", rewards, np.float32), ("Dones", dones, np.bool_)):
        _check_array(name, array, (env.num_envs,), np.dtype(dtype))
    _check_infos(infos, env, "infos")
    for row, (done, info) in enumerate(zip(dones, infos, strict=True)):
        cut_short = info.get("TimeLimit.truncated", None if done else False)
        assert isinstance(cut_short, bool | np.bool_), (
            f'Row {row} ended, and its info has no bool "TimeLimit.truncated" but {cut_short!r}.'
        )
        if not done:
            assert "terminal_observation" not in info, f'Row {row} goes on, and its info has a "terminal_observation".'
            assert not cut_short, f'Row {row} goes on, and its info says "TimeLimit.truncated".'
            continue
        assert "terminal_observation" in info, f'Row {row} ended, and its info has no "terminal_observation".'
        _check_observation(np.asarray(info["terminal_observation"]), env, f'The "terminal_observation" of row {row}')


def _check_observations(observations: Any, env: VecEnv, source: str) -> None:
    space = env.observation_space
    _check_array(f"Observations of {source}", observations, (env.num_envs, *(space.shape or ())), space.dtype)
    for row, observation in enumerate(observations):
        _check_observation(observation, env, f"The observation of row {row} from {source}")


def _check_observation(observation: NDArray[Any], env: VecEnv, name: str) -> None:
    space = env.observation_space
    _check_array(name, observation, space.shape or (), space.dtype)
    assert space.contains(observation), f"{name} is not in the space {space}."


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    assert isinstance(array, np.ndarray), f"{name} must be a NumPy array, not {type(array).__name__}."
    assert array.dtype == dtype and array.shape == shape, (
        f"{name} must be {dtype} {list(shape)}, not {array.dtype} {list(array.shape)}."
    )


def _check_infos(infos: Any, env: VecEnv, name: str) -> None:
    fits = isinstance(infos, list | tuple) and len(infos) == env.num_envs and all(isinstance(i, dict) for i in infos)
    assert fits, f"{name} must be a list of {env.num_envs} dicts, one a row, not {infos!r}."


def _check_attributes(env: VecEnv) -> None:
    for rows, n in ((None, env.num_envs), (0, 1), ([env.num_envs - 1], 1)):
        # `__str__` is a method that whatever is inside has.
        for name, values in (
            ("get_attr", env.get_attr("observation_space", rows)),
            ("env_method", env.env_method("__str__", indices=rows)),
        ):
            fits = isinstance(values, list | tuple) and len(values) == n
            assert fits, f"{name}(..., indices={rows}) must return a list of {n}, one value a row, not {values!r}."


def _count_actions(env: VecEnv) -> int:
    space = env.action_space
    assert isinstance(space, spaces.Discrete) and space.start == 0, f"Actions must be Discrete, from 0, not {space}."
    return int(space.n)


def _assert_same(ours: Any, theirs: Any, name: str) -> None:
    assert np.array_equal(ours, theirs), f"The same seed and actions brought other {name} in another environment."

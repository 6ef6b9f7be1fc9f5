"""What learners count on: dreams and worlds elsewhere keep it, and the checker sees what is broken."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from clocks import Clock, clocks
from corridor import Corridor
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformObservation
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from tiny_world import tiny_world

from envs.imagined_vector import ImaginedVectorEnv
from envs.observations import Obs

pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor  # noqa: E402

from agents.checker import check_vec_env  # noqa: E402
from agents.vec_env import SB3VecEnv  # noqa: E402

N = 3
SAME_STEP = AutoresetMode.SAME_STEP


def corridors() -> SyncVectorEnv:
    """Of worlds whose frames are copies: Gymnasium keeps the last frame of an episode as it is through the reset."""
    return SyncVectorEnv(
        [lambda: TransformObservation(Corridor(), np.copy, Corridor().observation_space)] * N, autoreset_mode=SAME_STEP
    )


@pytest.mark.parametrize("obs", ["pixels", "latents", "history"])
def test_dreams_keep_the_contract(obs: Obs) -> None:
    world = tiny_world()
    check_vec_env(
        lambda: SB3VecEnv(ImaginedVectorEnv(world, N, obs=obs, horizon=4, autoreset_mode=SAME_STEP)), steps=25
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: SB3VecEnv(corridors()),
        lambda: SB3VecEnv(RecordEpisodeStatistics(corridors())),
        lambda: SB3VecEnv(clocks(True, False)),
        lambda: VecMonitor(SB3VecEnv(clocks(True, False))),
        lambda: DummyVecEnv(
            [lambda: Clock(True), lambda: Clock(False)]
        ),  # not ours: so the checker asks no more than SB3
    ],
)
def test_worlds_elsewhere_keep_the_contract(make: Callable[[], VecEnv]) -> None:
    check_vec_env(make, steps=150)


class Broken(VecEnvWrapper):
    """Clocks that break the contract in the step's result, or elsewhere."""

    def __init__(self, **replaced: Callable[..., Any]) -> None:
        super().__init__(SB3VecEnv(clocks(True, False)))
        for name, function in replaced.items():
            setattr(self, name, function)

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.change(*self.venv.step_wait())

    def change(self, *result: Any) -> Any:
        return result


def with_infos(change: Callable[[bool, dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    return lambda o, r, d, infos: (o, r, d, [change(bool(d[i]), info) for i, info in enumerate(infos)])


def without(key: str) -> Callable[[bool, dict[str, Any]], dict[str, Any]]:
    return lambda done, info: {k: v for k, v in info.items() if k != key}


def one_buffer() -> Callable[..., Any]:
    buffer = np.zeros((2, 2), np.float32)

    def change(observations: Any, *others: Any) -> Any:
        buffer[...] = observations
        return buffer, *others

    return change


def luck() -> Callable[..., Any]:
    rng = np.random.default_rng()  # of no seed
    return lambda o, r, d, i: (o, rng.random(2, np.float32), d, i)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Broken(change=lambda o, *rest: (o + 9, *rest)), "is not in the space"),
        (lambda: Broken(change=lambda o, *rest: (o.astype(np.float64), *rest)), "must be float32"),
        (lambda: Broken(change=lambda o, *rest: (o[:1], *rest)), r"\[2, 2\], not float32 \[1, 2\]"),
        (lambda: Broken(change=lambda o, *rest: (o.tolist(), *rest)), "NumPy array, not list"),
        (lambda: Broken(reset=lambda: np.zeros((2, 3), np.float32)), r"of reset\(\) must be"),
        (lambda: Broken(change=lambda o, r, d, i: (o, r.astype(np.float64), d, i)), "Rewards must be float32"),
        (lambda: Broken(change=lambda o, r, d, i: (o, r[:, None], d, i)), r"not float32 \[2, 1\]"),
        (lambda: Broken(change=lambda o, r, d, i: (o, r, d.astype(int), i)), "Dones must be bool"),
        (lambda: Broken(change=lambda o, r, d, i: (o, r, d, i[0])), "list of 2 dicts"),
        (lambda: Broken(change=lambda o, r, d, i: (o, r, d, i[:1])), "list of 2 dicts"),
        (lambda: Broken(change=with_infos(without("terminal_observation"))), 'no "terminal_observation"'),
        (lambda: Broken(change=with_infos(without("TimeLimit.truncated"))), "TimeLimit.truncated"),
        (
            lambda: Broken(change=with_infos(lambda d, i: {**i, "TimeLimit.truncated": None})),
            'no bool "TimeLimit.truncated" but None',
        ),
        (
            lambda: Broken(change=with_infos(lambda d, i: {**i, "TimeLimit.truncated": True})),
            'goes on, and its info says "TimeLimit.truncated"',
        ),
        (
            lambda: Broken(change=with_infos(lambda d, i: {**i, "terminal_observation": np.zeros(2, np.float32)})),
            'goes on, and its info has a "terminal_observation"',
        ),
        (
            lambda: Broken(
                change=with_infos(lambda d, i: {**i, "terminal_observation": np.full(2, 9, np.float32)} if d else i)
            ),
            'The "terminal_observation" of row . is not in the space',
        ),
        (lambda: Broken(change=one_buffer()), "return copies"),
        (lambda: Broken(change=luck()), "other rewards"),
        (lambda: Broken(get_attr=lambda name, indices=None: [None]), "get_attr"),
        (lambda: Broken(env_method=lambda name, indices=None: ["a", "b"]), "env_method"),
        (lambda: SB3VecEnv(SyncVectorEnv([lambda: Corridor(endless=True)], autoreset_mode=SAME_STEP)), "No episode"),
        (lambda: DummyVecEnv([Corridor]), "from 0"),
    ],
)
def test_the_checker_sees_what_is_broken(make: Callable[[], VecEnv], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence) as caught:
        check_vec_env(make, steps=20)
    assert len(str(caught.value).splitlines()) == 1

"""`worldmodel/Imagined-v0` as many dreams, natively batched.

    envs = gymnasium.make_vec("envs:worldmodel/Imagined-v0", num_envs=64, model="dmlab-seekavoid")

Row i of `envs.reset(seed=s)` dreams what a single environment's `reset(seed=s + i)` does. All rows share each call of
the model.
"""

import operator
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.observations import Obs, observation_space
from worldmodel.errors import UserError
from worldmodel.sampling import check_temperature
from worldmodel.state import WorldState
from worldmodel.world import WorldModel


@dataclass
class Dream:
    """All that the future of N dreams depends on, besides the actions to come."""

    world: WorldState  # N rows
    steps: NDArray[np.int64]  # [N], since each row's reset
    ended: NDArray[np.bool_]  # [N]: the next thing to do with such a row is to reset it
    rngs: list[np.random.Generator]  # one a row
    codebook: str  # in whose codes the world thinks


class ImaginedVectorEnv(VectorEnv[NDArray[Any], NDArray[np.int64], NDArray[Any]]):
    """N dreams, stepped together.

    Observations are pixels, uint8 [N, H, W, 3]; latents, int64 [N, h, w] in [0, num_codes); or a history, the latents
    of the newest frames that the prior itself looks at, int64 [N, recent, h, w] with the newest last: what moves shows
    in it. With the last two nothing is ever drawn. Latents are a `Box`, not a `MultiDiscrete`: Stable-Baselines3 cannot
    store the latter with two axes, and would turn a flat one into one-hot vectors of h*w*num_codes. They are names, not
    amounts: embed them.

    A reset starts each row somewhere in the model's context bank, or with `options={"frames": uint8 [N, T, H, W, 3],
    "actions": int64 [N, T-1]}` after those frames; without "actions" the model is not told any. With `"reset_mask"`,
    bool [N], only those rows are reset. A seed s reseeds row i with s + i; a list gives each row its own.

    A dream terminates when the model says so and is truncated after `horizon` steps. `info["log_prob"]`, float64 [N] in
    nats, is the log-probability of what was drawn: how little it surprises the model.
    Resets after an end follow Gymnasium's `autoreset_mode`, observations, infos and all.

    Args:
        model: a bundled model's name, a folder, a Hub id, or a `WorldModel`.
        num_envs: the number of dreams, N.
        obs: "pixels", "latents" or "history".
        horizon: steps after which a dream is truncated.
        temperature: below 1 likelier frames, above 1 less likely ones.
        device, dtype: where and how precisely to run a model that is loaded here; a `WorldModel` stays as it is.
        autoreset_mode: when to reset a row that has ended.
        render_mode: "rgb_array" or None.

    Raises `UserError` for settings, actions, options and states that make no sense.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        model: str | Path | WorldModel,
        num_envs: int = 1,
        *,
        obs: Obs = "pixels",
        horizon: int = 300,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        if not all(isinstance(number, int | np.integer) and number >= 1 for number in (num_envs, horizon)):
            raise UserError(f"Dreams need a whole num_envs and horizon of 1 or more, not {num_envs} and {horizon}.")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            raise UserError(f"The autoreset_mode is one of Gymnasium's, not {autoreset_mode!r}.") from error
        check_temperature(temperature)
        if render_mode not in (None, "rgb_array"):
            raise UserError(f'Dreams render as "rgb_array", one alone as "human", too, or not, not as {render_mode!r}.')
        world = model
        if not isinstance(world, WorldModel):
            world = WorldModel.from_pretrained(world, device=device, dtype=dtype)
        self.world, self.num_envs, self.render_mode = world, num_envs, render_mode
        self.obs, self.horizon, self.temperature = obs, horizon, temperature
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode, "render_fps": world.fps}

        self.single_observation_space = observation_space(world, obs)
        self.single_action_space = spaces.Discrete(world.n_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._all = np.ones(num_envs, np.bool_)
        self._recent = world.config.dynamics.recent
        blank = torch.zeros(num_envs, 1, *world.code_shape, dtype=torch.int64)
        self._dream = Dream(
            world=world.observe_codes(blank, blank.new_zeros(num_envs, 0)),
            steps=np.zeros(num_envs, np.int64),
            ended=self._all.copy(),  # what has not begun must be reset, like what has ended
            rngs=[seeding.np_random()[0] for _ in range(num_envs)],
            codebook=world.video.codebook_fingerprint(),
        )
        self._obs = np.zeros(self.observation_space.shape or (), self.observation_space.dtype)  # of the present

    def get_action_meanings(self) -> list[str]:
        """The name of each action, in order."""
        return list(self.world.action_meanings)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        if not isinstance(options, dict | None):
            raise UserError(f"The options of a reset are a dictionary, not a {type(options).__name__}.")
        options = dict(options or {})
        rows = np.asarray(options.pop("reset_mask", self._all))
        if rows.dtype != np.bool_ or rows.shape != self._all.shape or not rows.any():
            raise UserError(f'The "reset_mask" of {self.num_envs} dreams has as many bools, at least one of them true.')
        seeds = row_seeds(seed, self.num_envs)
        start = self._given_start(rows, options) if options else None
        seeded = [row for row in np.flatnonzero(rows).tolist() if seeds[row] is not None]
        rngs = [seeding.np_random(seeds[row])[0] for row in seeded]  # all of them, before the first takes its place
        for row, rng in zip(seeded, rngs, strict=True):
            self._dream.rngs[row] = rng
        self._begin(rows, start or self._drawn_start(rows))
        return self._obs.copy(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        actions = np.asarray(actions)
        if actions not in self.action_space:
            raise UserError(
                f"The action of each of {self.num_envs} dreams is a whole number from 0 to {self.world.n_actions - 1}, "
                f"not {actions.tolist()}."
            )
        dream, stale = self._dream, self._dream.ended
        if self.autoreset_mode != AutoresetMode.NEXT_STEP:
            self._check_underway()
        fresh = self._drawn_start(stale) if stale.any() else None  # if there is none, nothing has happened yet
        live = ~stale
        rewards, log_probs = np.zeros(self.num_envs), np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, np.bool_)
        if live.any():
            step = self.world.step(
                dream.world[live] if stale.any() else dream.world,
                torch.from_numpy(actions[live].astype(np.int64)),
                rngs=[rng for rng, lives in zip(dream.rngs, live, strict=True) if lives],
                temperature=self.temperature,
            )
            self._arrive(live, step.state)
            rewards[live] = step.reward.numpy(force=True)
            terminated[live] = step.terminated.numpy(force=True)
            log_probs[live] = step.log_prob.numpy(force=True)
        dream.steps += live
        truncated = live & (dream.steps >= self.horizon)
        ended = terminated | truncated
        dream.ended = ended.copy()

        info = _log_prob_info(log_probs, live)
        if fresh is not None:
            self._begin(stale, fresh)
        if ended.any() and self.autoreset_mode == AutoresetMode.SAME_STEP:
            info = _log_prob_info(log_probs, live & ~ended) | self._final_info(log_probs, ended)
            self._begin(ended, self._drawn_start(ended))
        return self._obs.copy(), rewards, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The present frame of every row, uint8 [H, W, 3] each."""
        if self.render_mode is None:
            return None
        frames = self._obs.copy() if self.obs == "pixels" else _array(self.world.render(self._dream.world))
        return tuple(frames)

    def get_state(self) -> Dream:
        """A copy of all that the future depends on: after `set_state` of it the same actions dream the same dream."""
        return deepcopy(self._dream)

    def set_state(self, state: Dream) -> NDArray[Any]:
        """Go (back) to `state`, from this or another environment with as many rows; returns its observations."""
        if not isinstance(state, Dream):
            raise UserError(f"A state is what `get_state` has given, not a {type(state).__name__}.")
        if state.codebook != self._dream.codebook:
            raise UserError("The state is of another model's dreams: take one that an environment of this model gave.")
        rows = {len(state.world), len(state.steps), len(state.ended), len(state.rngs)}
        if rows != {self.num_envs}:
            raise UserError(f"The state is of {len(state.world)} dreams, and this environment has {self.num_envs}.")
        world = self.world.observe_codes(state.world.codes, state.world.actions)
        self._dream = replace(deepcopy(state), world=world)
        self._arrive(self._all, self._dream.world)
        return self._obs.copy()

    def branch(
        self, n: int, *, seed: int | None = None, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
    ) -> "ImaginedVectorEnv":
        """An environment where every row goes on from here `n` times, each time with luck of its own.

        Its rows i*n to i*n + n-1 continue row i of this one, which is left as it was. Row j draws from a generator
        with the seed `seed` + j, so two branches of the same state with the same seed have the same luck: what differs
        then is what their actions do. Like any other environment it begins a row that has ended anew; with the
        `autoreset_mode` "Disabled" such a row is refused instead.

        Raises `UserError` where a dream has ended, or not begun.
        """
        if not isinstance(n, int | np.integer) or n < 1:
            raise UserError(f"A branch goes on from each row once or more often, not {n} times.")
        self._check_underway()
        branches = ImaginedVectorEnv(
            self.world,
            self.num_envs * n,
            obs=self.obs,
            horizon=self.horizon,
            temperature=self.temperature,
            autoreset_mode=autoreset_mode,
            render_mode=self.render_mode,
        )
        rows = np.repeat(np.arange(self.num_envs), n)
        rngs = [seeding.np_random(row_seed)[0] for row_seed in row_seeds(seed, len(rows))]
        now = self._dream
        branches.set_state(Dream(now.world[rows], now.steps[rows], now.ended[rows], rngs, now.codebook))
        return branches

    def _check_underway(self) -> None:
        if (stale := self._dream.ended).any():
            how = "Reset or step" if self.autoreset_mode == AutoresetMode.NEXT_STEP else "Reset"
            raise UserError(f"{how} dreams {np.flatnonzero(stale).tolist()} first: they have ended, or not begun.")

    def _given_start(self, rows: NDArray[np.bool_], options: dict[str, Any]) -> WorldState:
        """The state of `rows` after the frames and actions that the options show to all."""
        if "frames" not in options or options.keys() - {"frames", "actions"}:
            raise UserError(f'A reset takes the options "frames", "actions" and "reset_mask", not {list(options)}.')
        frames = _as_array(options["frames"])
        if frames.ndim != 5 or len(frames) != self.num_envs or not frames.size:
            raise UserError(
                f'{self.num_envs} dreams start from "frames" [N, T, H, W, 3] (a single environment takes them without '
                f"N), not {list(frames.shape)}."
            )
        silence = np.full((self.num_envs, frames.shape[1] - 1), self.world.no_action)
        actions = _as_array(options.get("actions", silence))
        if actions.shape != silence.shape or actions.dtype.kind not in "iu":
            raise UserError(f'Between the frames are integer "actions" {list(silence.shape)}, not {actions.tolist()}.')
        frames, actions = frames[rows], actions[rows].astype(np.int64)
        return self.world.observe(torch.from_numpy(frames), torch.from_numpy(actions))

    def _drawn_start(self, rows: NDArray[np.bool_]) -> WorldState:
        """A start from the context bank for each of `rows`, drawn with its generator."""
        bank = self.world.contexts
        if bank is None:
            raise UserError('The model brings no starts along: reset with options={"frames": ..., "actions": ...}.')
        drawn = [int(self._dream.rngs[row].integers(len(bank))) for row in np.flatnonzero(rows)]
        return self.world.observe_codes(bank.codes[drawn], bank.actions[drawn])

    def _begin(self, rows: NDArray[np.bool_], start: WorldState) -> None:
        self._dream.steps[rows], self._dream.ended[rows] = 0, False
        self._arrive(rows, start)

    def _arrive(self, rows: NDArray[np.bool_], state: WorldState) -> None:
        """`rows` are in `state` now: the only place that observes, so that no row is drawn twice."""
        if rows.all():
            self._dream.world = state  # which nobody else holds
        else:
            self._dream.world[rows] = state
        if self.obs == "pixels":
            self._obs[rows] = _array(self.world.render(state))
        else:
            self._obs[rows] = _array(state.codes[:, -1] if self.obs == "latents" else state.codes[:, -self._recent :])

    def _final_info(self, log_probs: NDArray[np.float64], ended: NDArray[np.bool_]) -> dict[str, Any]:
        """What SAME_STEP tells of the frames that a reset replaces at once."""
        final_obs = np.full(self.num_envs, None, object)
        for row in np.flatnonzero(ended):
            final_obs[row] = self._obs[row].copy()
        info = {"final_obs": final_obs, "final_info": _log_prob_info(log_probs, ended)}
        return info | {"_final_obs": ended.copy(), "_final_info": ended.copy()}


def _as_array(values: Any) -> NDArray[Any]:
    """What the options of a reset give. Raises `UserError` where it is no array of numbers."""
    try:
        array = np.array(values.numpy(force=True) if isinstance(values, torch.Tensor) else values)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"The options of a reset are arrays, and this is none ({error}).") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"The options of a reset are arrays of numbers, not of {array.dtype}.")
    return array


def row_seeds(seed: int | Sequence[int | None] | None, rows: int) -> list[int | None]:
    """One seed a row, of one for all (`seed`, `seed + 1`, ...) or one each. Raises `UserError` for what is neither."""
    try:
        if seed is None:
            return [None] * rows
        seeds: list[int | None]
        if isinstance(seed, SupportsIndex) and not isinstance(seed, np.ndarray):
            seeds = [operator.index(seed) + i for i in range(rows)]
        else:
            seeds = [None if each is None else operator.index(each) for each in seed]
    except TypeError as error:
        raise UserError(f"Seeds are whole numbers, one for all dreams or one each, and not {seed!r}.") from error
    if len(seeds) != rows:
        raise UserError(f"There are {rows} dreams to seed, not {len(seeds)}.")
    if any(each is not None and each < 0 for each in seeds):
        raise UserError(f"Seeds are 0 or more, and not {seed!r}.")
    return seeds


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.numpy(force=True)


def _log_prob_info(log_probs: NDArray[np.float64], rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Gymnasium's form of an info that some rows have: zero and unmarked in the others, absent where none has it."""
    return {"log_prob": np.where(rows, log_probs, 0.0), "_log_prob": rows.copy()} if rows.any() else {}

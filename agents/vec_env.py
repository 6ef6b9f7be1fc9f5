"""From Gymnasium's vector environments to Stable-Baselines3's: the same worlds, as its learners expect them."""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from worldmodel.errors import UserError


class SB3VecEnv(VecEnv):
    """Any Gymnasium `VectorEnv` that resets in the step in which a row ends, as a Stable-Baselines3 `VecEnv`.

        envs = gymnasium.make_vec("envs:worldmodel/Imagined-v0", num_envs=64, model="doom-take-cover",
                                  obs="history", autoreset_mode="SameStep")
        settings = policy_settings(envs.single_observation_space, envs.unwrapped.world)
        PPO("MlpPolicy", SB3VecEnv(envs), policy_kwargs=settings)

    A row that ended has its last observation in `infos[i]["terminal_observation"]`; `infos[i]["TimeLimit.truncated"]`
    says whether it was cut short (then a learner counts on what that observation would still have brought) or was over.

    Discrete actions count from 0 here, as learners have them, wherever those of the environment begin.

    Attributes and methods of native vector environments belong to all rows alike: `get_attr` gives each row the same
    one, and `env_method` calls once. Those of a `SyncVectorEnv` or `AsyncVectorEnv` belong to each row's environment.
    What a vector wrapper adds is found, too.

    Raises `UserError` for another autoreset mode.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise UserError(
                f'Make the environments with autoreset_mode="SameStep", not {getattr(mode, "value", mode)!r}.'
            )
        self.envs, self._listing = envs, DictInfoToList(envs)
        actions, self._first_action = envs.single_action_space, 0
        if isinstance(actions, spaces.Discrete):
            actions, self._first_action = spaces.Discrete(int(actions.n)), int(actions.start)
        super().__init__(envs.num_envs, envs.single_observation_space, actions)

    def reset(self) -> Any:
        options = self._options[0]
        if any(other != options for other in self._options):
            raise UserError("All rows of these environments are reset with the same options.")
        observations, self.reset_infos = self._listing.reset(
            seed=list(self._seeds),  # type: ignore[arg-type]
            options=options or None,
        )
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions + self._first_action if self._first_action else actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, rows = self._listing.step(self._actions)
        dones = terminated | truncated
        for i in map(int, np.flatnonzero(dones)):
            # What a learner is told of the step is what ended there; what the reset brought is told apart.
            last, final = rows[i].pop("final_obs"), rows[i].pop("final_info", {})
            self.reset_infos[i] = rows[i]
            rows[i] = {**final, "terminal_observation": last}
        for i, info in enumerate(rows):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return observations, np.asarray(rewards, np.float32), dones, rows

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        owner, per_row = self._owner(attr_name)
        values: Sequence[Any] = owner.get_attr(attr_name) if per_row else [getattr(owner, attr_name)] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        rows, (owner, per_row) = list(self._get_indices(indices)), self._owner(attr_name)
        if per_row:
            values = self.get_attr(attr_name) if len(rows) < self.num_envs else [None] * self.num_envs
            for i in rows:
                values[i] = value
            owner.set_attr(attr_name, values)
        elif len(rows) == self.num_envs:
            setattr(owner, attr_name, value)
        else:
            raise UserError(f"The rows of these environments share {attr_name!r}: set it for all.")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        rows, (owner, per_row) = list(self._get_indices(indices)), self._owner(method_name)
        if not per_row:
            return [getattr(owner, method_name)(*method_args, **method_kwargs)] * len(rows)
        if len(rows) == self.num_envs:
            return list(owner.call(method_name, *method_args, **method_kwargs))
        if not hasattr(owner, "envs"):  # an AsyncVectorEnv
            raise UserError(f"These environments call {method_name!r} in all rows or in none.")
        return [owner.envs[i].get_wrapper_attr(method_name)(*method_args, **method_kwargs) for i in rows]

    def _owner(self, name: str) -> tuple[Any, bool]:
        """Whose the attribute `name` is, looked for from the outside in, and whether each row has one of its own."""
        for layer in layers(self.envs):
            if hasattr(layer, "get_attr") and hasattr(layer, "call"):  # a SyncVectorEnv or an AsyncVectorEnv
                return layer, True
            if hasattr(layer, name):
                return layer, False
        return self.envs, False

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        rows = self._get_indices(indices)
        envs = getattr(self.envs.unwrapped, "envs", None)  # of a SyncVectorEnv
        return [envs is not None and is_wrapped(envs[i], wrapper_class) for i in rows]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        return self.envs.render() or [None] * self.num_envs  # type: ignore[return-value]


def layers(envs: VectorEnv[Any, Any, Any]) -> Iterator[VectorEnv[Any, Any, Any]]:
    """The vector wrappers around an environment, outermost first, and it."""
    while isinstance(envs, VectorWrapper):
        yield envs
        envs = envs.env
    yield envs

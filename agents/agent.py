"""A trained agent: a policy, what it sees, and how both are kept on disk."""

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self, get_args
from zipfile import BadZipFile

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file

from agents.actors import Rngs
from agents.policies import make_policy
from envs.observations import Obs, observation_space
from worldmodel.errors import UserError
from worldmodel.files import new_folder, read_tensors, write_tensors, write_text
from worldmodel.folders import with_tuples
from worldmodel.same_world import check_same
from worldmodel.world import WorldModel

BUNDLED = Path(__file__).parent / "pretrained"
AGENT_FILES = "config.json", "policy.safetensors", "README.md"
# What reading a damaged agent, or a damaged checkpoint of Stable-Baselines3, may raise.
DAMAGES = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, RuntimeError),
    *(UnpicklingError, BadZipFile),
)
SAME_FEATURES = ("pi_", "vf_")  # prefixes under which a policy's state names its one features extractor twice more


@dataclass(frozen=True)
class AgentConfig:
    """What a folder of weights needs to become an agent again."""

    obs: Obs
    observation_shape: tuple[int, ...]
    """Of one observation."""
    num_codes: int
    """Latents are below this; 256 for pixels."""
    action_meanings: tuple[str, ...]
    model: str | None = None
    """The world model in whose latents it sees: a bundled name, a folder, or a Hub id. None for pixels."""
    codebook: str | None = None
    """Fingerprint of that model's codebook: latents of another one would be another language."""


class Agent:
    """An `Actor` that takes the action that its policy likes best.

    `agent.act(observations, rngs)`: observations [N, ...] of the kind `agent.obs` -> actions, int64 [N].
    """

    def __init__(self, config: AgentConfig, policy: ActorCriticPolicy, world: WorldModel | None = None) -> None:
        _check_world(config, world)
        self.config, self.policy, self.world = config, policy, world
        self.obs: Obs = config.obs
        # Worlds play on threads of their own, and a policy keeps the distribution it draws from in itself.
        self._lock = threading.Lock()
        policy.set_training_mode(False)

    def act(self, observations: NDArray[Any], rngs: Rngs) -> NDArray[np.int64]:
        with self._lock:
            return np.asarray(self.policy.predict(observations, deterministic=True)[0])

    def check_fits(self, frame_shape: tuple[int, ...], action_meanings: list[str]) -> None:
        """Raise `UserError` unless it can play a world of such frames and actions."""
        seen = self.world.frame_shape if self.world else self.config.observation_shape
        check_same("agent", seen, list(self.config.action_meanings), "this world", frame_shape, action_meanings)

    def save(self, folder: str | Path, *, card: str = "") -> None:
        """Write `config.json`, `policy.safetensors` (bfloat16) and `card` as `README.md`.

        An agent that is there already is replaced; raises `UserError` where something else is.
        """
        with new_folder(Path(folder).resolve(), AGENT_FILES) as new:
            weights = {
                k: v.bfloat16()
                for k, v in self.policy.state_dict().items()
                if not k.startswith(tuple(f"{p}features" for p in SAME_FEATURES))
            }
            write_tensors(new / "policy.safetensors", weights)
            write_text(new / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")
            write_text(new / "README.md", card)

    @classmethod
    def load(cls, name: str | Path, *, world: WorldModel | None = None, device: str = "cpu") -> Self:
        """A bundled agent by its name, or a folder that `save` wrote; `.zip` files are read by `from_zip`.

        It sees through `world`, or else through the model that it was trained in, which is loaded on `device`.
        Raises `UserError` when there is no such agent, its files are damaged, or `world` is not its own.
        """
        if Path(name).suffix == ".zip":
            return cls.from_zip(name)
        folder = next((f for f in (BUNDLED / name, Path(name)) if (f / "config.json").is_file()), None)
        if folder is None:
            bundled = ", ".join(sorted(path.name for path in BUNDLED.glob("*/"))) or "none"
            inside = [str(Path(name) / part) for part in ("best", "agent") if (Path(name) / part).is_dir()]
            hint = f"; {' and '.join(inside)} may" if inside else ""
            raise UserError(
                f"There is no agent {name}: it is neither bundled ({bundled}) nor a folder that holds one{hint}."
            )
        if not (folder / "policy.safetensors").is_file():
            raise UserError(f"{folder} is not an agent: it has no policy.safetensors.")
        try:
            config = AgentConfig(**with_tuples(json.loads((folder / "config.json").read_text())))
            if not all(isinstance(meaning, str) for meaning in config.action_meanings):
                raise ValueError("its actions have no names")
            space, actions = _sb3_space(config), spaces.Discrete(len(config.action_meanings))
        except DAMAGES as error:
            raise _damaged(folder, error) from error
        if config.obs == "pixels":
            world = None
        elif world is None and config.model is not None:
            world = WorldModel.from_pretrained(config.model, device=device)
        _check_world(config, world)
        weights = read_tensors(folder / "policy.safetensors")
        try:
            if world is not None and space != observation_space(world, config.obs):
                raise ValueError("its observations are not those of its model")
            policy = make_policy(space, actions, world)
            features = {k: v for k, v in weights.items() if k.startswith("features_extractor")}
            weights |= {f"{prefix}{k}": v for prefix in SAME_FEATURES for k, v in features.items()}
            policy.load_state_dict(weights)
        except (UserError, *DAMAGES) as error:
            raise _damaged(folder, error) from error
        return cls(config, policy, world)

    @classmethod
    def from_zip(cls, path: str | Path) -> Self:
        """An agent of pixels that Stable-Baselines3 saved with `algorithm.save(path)`.

        Its file holds pickled Python: load only what you trust. Raises `UserError` when there is no such agent in it.
        """
        if not Path(path).is_file():
            raise UserError(f"There is no {path}.")
        try:
            data, parameters, _ = load_from_zip_file(path, device="cpu")
            assert data is not None
            if data["observation_space"].dtype != np.uint8:
                raise ValueError("it sees latents; take the folder that train-agent wrote")
            policy = data["policy_class"](
                data["observation_space"], data["action_space"], lambda _: 0.0, **data["policy_kwargs"]
            )
            policy.load_state_dict(parameters["policy"])
            shape, n = data["observation_space"].shape, int(data["action_space"].n)
        except DAMAGES as error:
            raise UserError(
                f"{path} holds no agent of pixels saved by Stable-Baselines3: {_first_line(error)}."
            ) from error
        if len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3):
            shape = (*shape[1:], shape[0])  # it saw images with their channels moved to the front
        return cls(AgentConfig("pixels", shape, 256, tuple(map(str, range(n)))), policy)


def _check_world(config: AgentConfig, world: WorldModel | None) -> None:
    """Raise `UserError` unless such an agent can see through `world`."""
    if world is None and config.obs != "pixels":
        raise UserError("The agent sees the latents of a model, and does not say of which: give it its world.")
    if world is not None and world.video.codebook_fingerprint() != config.codebook:
        raise UserError(
            "The agent sees the latents of another tokenizer than this model's; take the model it was trained in"
            + (f", {config.model} as it was then." if config.model else ".")
        )


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(f"The agent in {folder} is damaged or of another version: {_first_line(error)}.")


def _first_line(error: Exception) -> str:
    """Of a message: those of torch about weights that do not fit have one a weight."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".:")


def _sb3_space(config: AgentConfig) -> spaces.Box:
    """What its policy sees, as Stable-Baselines3 has it: images have channels first."""
    if config.obs not in get_args(Obs):
        raise ValueError(f"there are no observations {config.obs!r}")
    if config.obs == "pixels":
        height, width, channels = config.observation_shape
        return spaces.Box(0, 255, (channels, height, width), np.uint8)
    return spaces.Box(0, config.num_codes - 1, config.observation_shape, np.int64)

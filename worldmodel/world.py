"""The world model: a video VQ-VAE and its prior, stepped together in the latent space."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.allocator import keep_freed_memory
from worldmodel.described import described
from worldmodel.dynamics import Dynamics, DynamicsConfig
from worldmodel.errors import UserError
from worldmodel.files import read_tensors
from worldmodel.folders import check_place, find_model, read_config, read_model, with_tuples, write_model
from worldmodel.sampling import check_temperature
from worldmodel.state import ContextBank, Rollout, Step, WorldState, generators
from worldmodel.video import VideoConfig, VideoVQVAE

M = TypeVar("M", bound=nn.Module)
W = TypeVar("W", bound="WorldModel")

if hasattr(os, "register_at_fork"):
    # A forked process, as Gymnasium's AsyncVectorEnv makes them, waits forever for the other threads of its parent.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@dataclass(frozen=True)
class WorldConfig:
    """All that a folder of weights needs to become a world again."""

    video: VideoConfig
    dynamics: DynamicsConfig
    action_meanings: tuple[str, ...]
    """One name an action, in the order of their ids."""
    fps: float
    """Frames a second of the recordings."""


class WorldModel(nn.Module):
    """Generation happens among codes; frames are drawn only when someone wants to look.

    Frames, codes and actions may be on any device; what comes of them is on the model's.
    """

    def __init__(self, config: WorldConfig, contexts: ContextBank | None = None) -> None:
        super().__init__()
        self.config = config
        self.video = VideoVQVAE(config.video)
        self.dynamics = Dynamics(config.dynamics)
        self.contexts = contexts
        self.n_actions = config.dynamics.n_actions
        self.no_action = self.dynamics.no_action  # the action id that says "none given"
        self.action_meanings = list(config.action_meanings)
        self.frame_shape = (*config.video.frame_size, 3)
        self.code_shape = config.video.code_shape
        self.num_codes = config.video.num_codes
        self.fps = config.fps

    @property
    def device(self) -> torch.device:
        return self.video.device

    @torch.no_grad()
    def observe(self, frames: Tensor, actions: Tensor) -> WorldState:
        """The state after watching T frames, uint8 [B, T, H, W, 3], and the T-1 actions between them, int64 [B, T-1].

        Raises `UserError` for frames of another size or type than the model's, or actions out of range.
        """
        self.video.check_frames(frames)
        self._check_between(frames, actions)
        known = self.config.dynamics.reach  # frames that a state remembers
        begin = max(frames.shape[1] - known, 0)
        past = frames[:, max(begin - self.config.video.memory, 0) : begin] if begin else None
        return self.observe_codes(self.video.encode(frames[:, begin:], past), actions[:, begin:])

    @torch.no_grad()
    def observe_codes(self, codes: Tensor, actions: Tensor) -> WorldState:
        """The same from codes, int64 [B, T, h, w], for starts that are kept without their pixels."""
        if not isinstance(codes, Tensor) or codes.dtype != torch.int64 or not codes.numel():
            raise UserError(f"Codes are an int64 tensor, with at least one of them, not {described(codes)}.")
        shape = list(self.code_shape)
        if codes.ndim != 4 or list(codes.shape[2:]) != shape or codes.min() < 0 or codes.max() >= self.num_codes:
            raise UserError(
                f"Codes are [B, T, {', '.join(map(str, shape))}], from 0 to {self.num_codes - 1}; "
                f"these are {list(codes.shape)}, from {int(codes.min())} to {int(codes.max())}."
            )
        self._check_between(codes, actions)
        return WorldState(*self.dynamics.past(codes.to(self.device), actions.to(self.device)))

    @torch.no_grad()
    def step(
        self,
        state: WorldState,
        action: Tensor,
        *,
        rngs: Sequence[np.random.Generator] | None = None,
        temperature: float = 1.0,
    ) -> Step:
        """Imagine one step of every row.

        Args:
            state: B rows of this model's codes (another's of the same shapes goes unnoticed); it is left as it was.
            action: int64 [B] in [0, n_actions), or `no_action`.
            rngs: one generator a row, fresh ones if not given; a row's dream depends on its own generator alone.
            temperature: below 1 likelier codes, above 1 less likely ones.
        """
        self._check_state(state)
        self._check_actions(action)
        check_temperature(temperature)
        rngs = generators(None, len(state)) if rngs is None else rngs
        if not isinstance(rngs, Sequence) or not all(isinstance(rng, np.random.Generator) for rng in rngs):
            raise UserError("The generators are a list of NumPy's, np.random.default_rng(seed), one a dream.")
        if action.shape != (len(state),) or len(rngs) != len(state):
            raise UserError(
                f"{len(state)} dreams take actions of shape [{len(state)}] and as many generators, "
                f"not {list(action.shape)} and {len(rngs)}."
            )
        size = state.codes[0, 0].numel()
        # Codes and the termination are all decided by these: one uniform each.
        uniforms = torch.from_numpy(np.stack([rng.random(size + 1, np.float32) for rng in rngs])).to(self.device)
        actions = torch.cat([state.actions, action[:, None].to(self.device)], 1)
        drawn = self.dynamics.draw(state.codes, actions, uniforms[:, :-1], temperature)
        codes = torch.cat([state.codes[:, 1:], drawn.codes[:, None]], 1)
        terminated = uniforms[:, -1] < drawn.termination
        return Step(WorldState(codes, actions[:, 1:]), drawn.codes, drawn.reward, terminated, drawn.log_prob)

    def imagine(
        self,
        state: WorldState,
        actions: Tensor,
        *,
        rngs: Sequence[np.random.Generator] | None = None,
        temperature: float = 1.0,
    ) -> Rollout:
        """Step along `actions`, int64 [B, H]; a row that terminates dreams on, so that every row has H frames."""
        self._check_actions(actions)  # of all steps, before the first
        if actions.ndim != 2 or not actions.numel():
            raise UserError(f"Actions to imagine along have shape [B, H], both 1 or more, not {list(actions.shape)}.")
        self._check_state(state)
        past, steps = state.codes, []
        rngs = generators(None, len(state)) if rngs is None else rngs
        for action in actions.unbind(1):
            step = self.step(state, action, rngs=rngs, temperature=temperature)
            state = step.state
            steps.append((step.codes, step.reward, step.terminated, step.log_prob))  # and not the past of each
        codes, rewards, terminated, log_probs = (torch.stack(part, 1) for part in zip(*steps, strict=True))
        return Rollout(codes, rewards, terminated, log_probs, state, past, self.video)

    def render(self, state: WorldState) -> Tensor:
        """The newest frame of every row, uint8 [B, H, W, 3]."""
        return self.video.decode(state.codes[:, -1:], past=state.codes[:, :-1])[:, 0]

    def _check_state(self, state: WorldState) -> None:
        """Raise `UserError` unless a dream may go on from there; of its many codes only the form is looked at."""
        if not isinstance(state, WorldState):
            raise UserError(f"A dream goes on from a WorldState, as `observe` gives one, not from {described(state)}.")
        if not len(state):
            raise UserError("There is no dream to step: the state has no rows.")
        reach, shapes = self.config.dynamics.reach, (state.codes.shape[1:], state.actions.shape[1:])
        form = (*shapes, len(state.actions), state.codes.dtype, state.actions.dtype)
        sound = form == ((reach, *self.code_shape), (reach - 1,), len(state), torch.int64, torch.int64)
        if not sound or not 0 <= state.actions.min() <= state.actions.max() <= self.no_action:
            raise UserError(f"The state, of codes {list(state.codes.shape)}, is another model's.")

    def _check_between(self, frames: Tensor, actions: Tensor) -> None:
        """Raise `UserError` unless `actions` are those between frames, or their codes, [B, T, ...]."""
        self._check_actions(actions)
        between = [len(frames), frames.shape[1] - 1]
        if list(actions.shape) != between:
            raise UserError(
                f"Frames {list(frames.shape[:2])} have {between} actions between them, not {list(actions.shape)}."
            )

    def _check_actions(self, actions: Tensor) -> None:
        if not isinstance(actions, Tensor) or actions.dtype != torch.int64:
            raise UserError(f"Actions are int64 tensors, not {described(actions)}.")
        if actions.numel() and not 0 <= int(actions.min()) <= int(actions.max()) <= self.no_action:
            raise UserError(
                f"Actions run from 0 to {self.n_actions - 1} ({self.no_action} for none), "
                f"not from {int(actions.min())} to {int(actions.max())}."
            )

    def save_pretrained(self, folder: str | Path, *, card: str = "") -> None:
        """Write `config.json`, `model.safetensors` (bfloat16), `contexts.safetensors`, and `card` as `README.md`.

        A model that is there already is replaced as a whole; raises `UserError` where something else is.
        """
        beside = {}
        if self.contexts is not None:
            codes, actions = self.contexts.codes.to(torch.int16), self.contexts.actions.to(torch.int16)
            beside["contexts"] = {"codes": codes, "actions": actions}
        write_model(folder, "world", self, self.config, card, beside=beside)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Self:
        """Load a bundled model by its name, a folder by its path, or a Hub repository by its id; ready to dream.

        In any `dtype` a frame has the same codes, as the encoder stays in float32: it is not what a dream waits for.
        From then on the process keeps memory that it has freed, up to 2 GiB, which is faster (`worldmodel.allocator`).

        Raises `UserError` when there is no such model or device, or its files are damaged.
        """
        check_place(device, dtype)
        keep_freed_memory()
        folder = find_model(name, "world")
        config = read_config(folder, "world", _parse)
        world = read_model(folder, lambda: cls(config))
        world.contexts = _read_contexts(folder, config)
        return to_dream_in(world, device, dtype)


def to_dream_in(world: W, device: torch.device | str, dtype: torch.dtype) -> W:
    """Bring a world to a device and a precision, but for its encoder: in another, frames would have other codes."""
    world.to(device, dtype).video.encoder.float()
    return fast_layout(world)


def fast_layout(module: M) -> M:
    """Lay out convolution weights channels last, as the convolutions of every backend prefer."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return module


def _parse(raw: dict[str, Any]) -> WorldConfig:
    video = VideoConfig(**with_tuples(raw.pop("video")))
    dynamics = DynamicsConfig(**with_tuples(raw.pop("dynamics")))
    config = WorldConfig(video, dynamics, **with_tuples(raw))
    if len(config.action_meanings) != dynamics.n_actions or not config.fps > 0:
        raise ValueError("its actions and their names differ in number, or it has no frame rate")
    return config


def _read_contexts(folder: Path, config: WorldConfig) -> ContextBank | None:
    """The starts that travel with a model, if any do."""
    path = folder / "contexts.safetensors"
    if not path.exists():
        return None
    tensors = read_tensors(path)
    codes, actions = (tensors.get(name, torch.empty(0)).long() for name in ("codes", "actions"))
    sound = (
        codes.ndim == 4
        and codes.numel() > 0
        and codes.shape[2:] == config.video.code_shape
        and actions.shape == (len(codes), codes.shape[1] - 1)
        and bool(((codes >= 0) & (codes < config.video.num_codes)).all())
        and bool(((actions >= 0) & (actions <= config.dynamics.n_actions)).all())
    )
    if not sound:
        raise UserError(f"The starts in {path} are damaged, or another model's; fetch or train the model again.")
    return ContextBank(codes, actions)

"""How much is given and how much is imagined, by name; and where in a store that is done."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """`given` frames are shown, then `imagined` ones are predicted."""

    name: str
    given: int
    imagined: int
    clip: int | None = None
    """Frames given before a clip for FVD, which is the rest of given + imagined; None: as many as before all else."""
    beyond: bool = False
    """Imagine on after the recording ends, under the actions of other episodes, where there is no truth."""

    @property
    def horizons(self) -> list[int]:
        """The horizons that are measured: each up to 100; then, where the imagined ones are very many, each tenth."""
        coarse = 10 if self.imagined > 300 else 1
        return [h for h in range(1, self.imagined + 1) if h <= 100 or h % coarse == 0]


PROTOCOLS = MappingProxyType(
    {
        p.name: p
        for p in (
            Protocol("paper", given=6, imagined=10),  # Figure 7 of the paper
            # TECO (Yan et al., 2023), DMLab: PSNR, SSIM and LPIPS after 144 of 300 frames, FVD after 36.
            Protocol("teco", given=144, imagined=156, clip=36),
            Protocol("long", given=16, imagined=1000, beyond=True),
        )
    }
)


@dataclass
class Context:
    """One place in a store: what is given, and what really followed, as far as the recording goes."""

    episode: int
    first: int  # frame of the episode that is given first
    frames: Tensor  # uint8 [given + known, H, W, 3]
    actions: Tensor  # int64 [given - 1 + imagined]
    rewards: Tensor  # float32 [known]
    terminated: Tensor  # bool [known]
    given: int

    @property
    def known(self) -> int:
        """How many of the imagined frames have a true one."""
        return len(self.frames) - self.given


def choose_contexts(store: EpisodeStore, protocol: Protocol, count: int, *, seed: int = 0) -> list[Context]:
    """Up to `count` contexts, spread evenly over the episodes and within them.

    Where the protocol goes beyond the recording, they lie in the first half of an episode, so that much is known.
    Raises `UserError` when no episode is long enough.
    """
    need = protocol.given + (10 if protocol.beyond else protocol.imagined)
    places = np.maximum(store.lengths + 2 - need, 0)  # first frames that an episode of T + 1 frames has room for
    if protocol.beyond:
        places = np.minimum(places, 1 + store.lengths // 2)
    episodes = np.flatnonzero(places)
    if not len(episodes):
        longest = f"the longest of {store.address} has {store.lengths.max() + 1}" if len(store) else "there is none"
        raise UserError(f'The protocol "{protocol.name}" needs episodes of {need} frames, and {longest}.')
    share = np.diff(np.linspace(0, count, len(episodes) + 1).astype(int)).tolist()
    rng = np.random.default_rng(seed)
    contexts = []
    for episode, wanted in zip(episodes.tolist(), share, strict=True):
        last = int(places[episode]) - 1
        firsts = np.unique(np.linspace(0, last, wanted, dtype=int)) if wanted > 1 else np.array([last // 2] * wanted)
        contexts += [_context(store, protocol, episode, first, rng) for first in firsts.tolist()]
    return contexts


def _context(store: EpisodeStore, protocol: Protocol, episode: int, first: int, rng: np.random.Generator) -> Context:
    whole, play = store[episode], store.flat("actions")
    total = protocol.given + protocol.imagined
    frames = whole.frames[first : first + total]
    known = slice(first + protocol.given - 1, first + len(frames) - 1)  # the steps that lead to known frames
    actions = whole.actions[first : first + total - 1]
    while len(actions) < total - 1:  # random play goes on: as it did from some moment on
        actions = np.concatenate([actions, play[int(rng.integers(len(play))) :]])
    return Context(
        episode=episode,
        first=first,
        frames=torch.from_numpy(frames),
        actions=torch.from_numpy(actions[: total - 1]),
        rewards=torch.from_numpy(whole.rewards[known]),
        terminated=torch.from_numpy(whole.terminated[known]),
        given=protocol.given,
    )

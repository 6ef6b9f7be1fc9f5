"""A world whose truth is known in closed form: a cylinder that one turns in, and predictors that know or miss it."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.benchmark.predictors import Prediction
from worldmodel.episodes import Episode, EpisodeStore

SIDE, AROUND, STRIDE = 32, 96, 4  # pixels: of a frame, of the whole view around, and of one turn
ACTIONS = ["look left", "look right", "stay"]
TURNS = np.array([-STRIDE, STRIDE, 0])


def panorama() -> Tensor:
    """uint8 [SIDE, AROUND, 3]: smooth and nowhere alike; its ends meet."""
    noise = torch.rand(1, 3, 8, AROUND // 4, generator=torch.Generator().manual_seed(0))
    wrapped = torch.cat([noise, noise[..., :2]], -1)
    smooth = F.interpolate(wrapped, size=(SIDE, AROUND + 8), mode="bilinear")[0, :, :, :AROUND]
    return (smooth.movedim(0, -1) * 255).to(torch.uint8)


def views(places: np.ndarray) -> Tensor:
    """What is seen at places, int [...]: uint8 [..., SIDE, SIDE, 3]."""
    columns = (places[..., None] + np.arange(SIDE)) % AROUND
    return panorama()[:, torch.from_numpy(columns)].movedim(0, -3)


def make_store(address: str, *, episodes: int, steps: int, seed: int = 0) -> EpisodeStore:
    """Random turns, each held for a while; a step right pays 1. The last 24 steps turn six there and back, twice."""
    store = EpisodeStore.create(
        address,
        frame_shape=(SIDE, SIDE, 3),
        n_actions=3,
        provenance={"env_id": "Panorama-v0", "action_meanings": ACTIONS, "frame_skip": 1, "fps": 10},
    )
    rng = np.random.default_rng(seed)
    for number in range(episodes):
        actions = np.repeat(rng.integers(3, size=steps), rng.integers(1, 4, size=steps))[: steps - 25]
        actions = np.concatenate([actions, [2], np.tile(np.repeat([1, 0], 6), 2)])
        places = STRIDE * rng.integers(AROUND // STRIDE) + np.concatenate([[0], TURNS[actions].cumsum()])
        nothing = np.zeros(len(actions), bool)
        store.append(
            Episode(views(places).numpy(), actions, (actions == 1).astype(np.float32), nothing, nothing, seed=number)
        )
    return store


class Turning:
    """Knows the panorama: finds where it is, then turns as it is told. Each flaw makes another predictor of it.

    frozen: does not move.  noise: its standard deviation in grey levels.  deaf: does other actions than it is told.
    fade: the share of contrast lost a step.  loop: shows its first so many frames again and again.  ends: after so many
    steps.  pays: for a step right.
    """

    def __init__(
        self,
        name: str,
        *,
        frozen: bool = False,
        noise: float = 0,
        deaf: bool = False,
        fade: float = 0,
        loop: int = 0,
        ends: int = 0,
        pays: float = 1,
    ) -> None:
        self.name, self.frozen, self.noise, self.deaf, self.fade, self.loop = name, frozen, noise, deaf, fade, loop
        self.ends, self.pays = ends, pays

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        everywhere = views(np.arange(0, AROUND, STRIDE))
        rows, rewards = [], []
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            error = (everywhere.float() - frames[row, -1].float()).abs().mean((1, 2, 3))
            place = STRIDE * int(error.argmin())
            taken = rng.integers(3, size=horizon) if self.deaf or actions is None else actions[row, -horizon:].numpy()
            places = place + (0 if self.frozen else 1) * TURNS[taken].cumsum()
            if self.loop:
                places = places[np.arange(horizon) % self.loop]
            seen = views(places).float()
            left = (1 - self.fade) ** torch.arange(1, horizon + 1).view(-1, 1, 1, 1)
            seen = 128 + (seen - 128) * left + self.noise * torch.from_numpy(rng.standard_normal(seen.shape))
            rows.append(seen.round().clamp(0, 255).to(torch.uint8))
            rewards.append(torch.from_numpy(self.pays * (taken == 1).astype(np.float32)))
        past_end = torch.arange(1, horizon + 1) - self.ends
        # After its end a dream goes on, and ends now and then again.
        terminated = ((past_end >= 0) & (past_end % 3 == 0) & (self.ends > 0)).expand(len(seeds), -1)
        return Prediction(torch.stack(rows), torch.stack(rewards), terminated)

"""What the tokenizer and the prior are trained for, on windows of an episode store."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.pictures import tile
from worldmodel.quantizer import perplexity
from worldmodel.salience import PixelWeight
from worldmodel.state import generators
from worldmodel.step import Batch
from worldmodel.video import VideoVQVAE
from worldmodel.windows import WindowDataset, cached_frames
from worldmodel.world import WorldModel


class VideoObjective:
    """Eq. 3 for the video VQ-VAE, its reconstruction term in units of the recordings' own spread."""

    name = "tokenizer"
    window = 2

    def __init__(self, model: VideoVQVAE, store: EpisodeStore, *, size: int, seed: int = 0) -> None:
        self.model = model
        self.dataset = WindowDataset(store, self.window, size=size, seed=seed, frames=cached_frames(store))
        sample = torch.cat([self.dataset[i]["frames"] for i in range(min(1000, size))]).float() / 255
        if model.config.loss == "mse":
            self.pixel_weight = None
            self.scale = float(sample.var())
        else:
            self.pixel_weight = PixelWeight(store).to(model.device)
            self.scale = float((sample - sample.mean((0, 1, 2))).abs().mean())
        if self.scale < 1e-6:  # of what is all the same rounding leaves something
            raise UserError(f"All frames of {store.address} look the same: there is nothing to learn from them.")

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        frames = batch["frames"]
        weight = self.pixel_weight(frames) if self.pixel_weight else torch.ones(frames.shape[:-1], device=frames.device)
        out = self.model(frames, weight / self.scale)
        return out.total, {
            "reconstruction": out.reconstruction,
            "codebook and commitment": out.total - out.reconstruction,
            "codebook usage": self.model.quantizer.usage,
            "perplexity": perplexity(out.codes, self.model.config.num_codes),
        }

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        frames = _first(self.dataset, 8)["frames"].to(self.model.device)
        decoded = self.model.decode(self.model.encode(frames))
        grid = torch.stack([frames[:, -1], decoded[:, -1]])  # [2, N, H, W, 3]
        use = self.model.quantizer.recent_share.sort(descending=True).values
        bars = torch.arange(64, 0, -1, device=use.device)[:, None] <= (use / use.max() * 64)
        return {
            "given (top), reconstructed (bottom)": tile(grid),
            "codebook use, most used first": (bars[..., None] * 255).expand(-1, -1, 3).to(torch.uint8),
        }

    def trouble(self) -> str | None:
        if self.model.quantizer.usage < 0.2:
            return (
                f"The codebook is collapsing: {self.model.quantizer.usage:.0%} of its codes are in use; "
                "lower the learning rate, or use a smaller codebook."
            )
        return None


class DynamicsObjective:
    """Cross entropy of the next frame's codes, over windows of codes and their past.

    - One window in ten has its actions withheld, so that one model serves both with and without actions.
    - Half of the windows remember only some of their past: a dream may begin from a few frames.
    - A few of the codes that are looked back on are replaced by random ones, so that the prior learns to trust no
      single glimpse: in a dream the past is its own, imperfect, work.
    - Positions count by the salience of the codes around them one frame *earlier*. A weight that depends on the past
      alone shifts effort to where rewards are, and leaves the best prediction what it was.
    """

    name = "prior"
    window = 16

    def __init__(
        self, world: WorldModel, store: EpisodeStore, codes: Tensor, salience: Tensor, *, size: int, seed: int = 0
    ) -> None:
        """`codes`: int16 [F, h, w], all frames of the store; `salience`: float [K], how much each code matters."""
        self.world, self.model = world, world.dynamics
        self.past = world.config.dynamics.reach - 1
        self.dataset = WindowDataset(store, self.window, size=size, seed=seed, frames=codes, past=self.past)
        self.salience = salience

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        codes, actions = withhold(batch["frames"].long(), batch["actions"], self.past, self.world.no_action)
        given = self.past + 1
        seen, after = self.look_back(codes, actions), codes[:, given:]
        _, context = self.model.foresee_after(seen, actions, given)  # [B*T, C, h, w]
        logits = self.model.head(context, self.look_around(after, context).flatten(0, 1)).movedim(1, -1)
        nats = F.cross_entropy(logits.flatten(0, -2).float(), after.flatten(), reduction="none").view(after.shape)
        weight = self._weight(codes[:, given - 1 : -1])
        return (nats * weight).mean(), {"bits per code": nats.mean() / math.log(2)}

    def look_back(self, codes: Tensor, actions: Tensor) -> Tensor:
        """What stands in for the past: int64 [B, past + 1 + T, h, w], made of a window's true codes."""
        return blur(codes)

    def look_around(self, after: Tensor, context: Tensor) -> Tensor:
        """What stands in for the other codes of a frame, int64 [B, T, h, w], while each of its true codes is predicted.

        `context`, float [B*T, C, h, w], is what the past says of the frames.
        """
        return after

    def _weight(self, past: Tensor) -> Tensor:
        """Largest salience in the 3x3 codes around, with mean one.  [B, T, h, w] -> [B, T, h, w]"""
        weight = F.max_pool2d(self.salience.to(past.device)[past], 3, stride=1, padding=1)
        return weight / weight.mean()

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        first = _first(self.dataset, 4)
        codes, actions = (first[name].long().to(self.salience.device) for name in ("frames", "actions"))
        given = self.past + self.window // 2
        state = self.world.observe_codes(codes[:, :given], actions[:, : given - 1])
        dream = self.world.imagine(state, actions[:, given - 1 :], rngs=generators(0, len(codes))).frames()
        truth = self.world.video.decode(codes[:, given:], past=codes[:, :given])
        return {"truth and dream, row by row": tile(torch.stack([truth, dream], 1).flatten(0, 1))}

    def trouble(self) -> str | None:
        return None


def withhold(codes: Tensor, actions: Tensor, past: int, no_action: int) -> tuple[Tensor, Tensor]:
    """Take from some rows of codes, int64 [B, T, h, w], and actions, int64 [B, T-1], what a dream may lack.

    Half of them begin at a random one of their first `past` + 1 frames, as if nothing had come before it; one in ten is
    told no actions.
    """
    chance = torch.rand(2, len(codes), 1, device=codes.device)
    first = torch.randint(past + 1, (len(codes), 1), device=codes.device)
    codes, actions = begin_at(codes, actions, torch.where(chance[0] < 0.5, first, 0), no_action)
    return codes, actions.masked_fill(chance[1] < 0.1, no_action)


def begin_at(codes: Tensor, actions: Tensor, first: Tensor, no_action: int) -> tuple[Tensor, Tensor]:
    """Hold each row's frame `first`, int64 [B, 1], in place of all before it, with no action given there."""
    time = torch.arange(codes.shape[1], device=codes.device)  # [T]
    frames = torch.maximum(time, first)[:, :, None, None].expand_as(codes)
    return codes.gather(1, frames), actions.masked_fill(time[:-1] < first, no_action)


def blur(codes: Tensor) -> Tensor:
    """Replace up to a tenth of each row's codes, int64 [B, T, h, w], by codes from elsewhere in the batch."""
    share = 0.1 * torch.rand(len(codes), 1, 1, 1, device=codes.device)
    other = codes.flatten()[torch.randint(codes.numel(), codes.shape, device=codes.device)]
    return torch.where(torch.rand(codes.shape, device=codes.device) < share, other, codes)


def _first(dataset: WindowDataset, n: int) -> Batch:
    """The first n windows, or all there are."""
    return dataset.batch(0, min(n, len(dataset)))

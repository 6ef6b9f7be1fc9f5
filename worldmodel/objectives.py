"""What the tokenizer and the prior are trained for, on windows of an episode store."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.episodes import EpisodeStore
from worldmodel.pictures import tile
from worldmodel.quantizer import perplexity
from worldmodel.salience import PixelWeight
from worldmodel.state import generators
from worldmodel.training import Batch
from worldmodel.video import VideoVQVAE
from worldmodel.windows import WindowDataset
from worldmodel.world import WorldModel

CACHE_BYTES = 8 * 2**30  # recordings up to this size are kept in memory, decoded


class VideoObjective:
    """Eq. 3 for the video VQ-VAE, its reconstruction term in units of the recordings' own spread."""

    name = "tokenizer"

    def __init__(self, model: VideoVQVAE, store: EpisodeStore, *, size: int, seed: int = 0, window: int = 2) -> None:
        self.model = model
        cached = int(store.lengths.sum() + len(store)) * math.prod(store.frame_shape) <= CACHE_BYTES
        frames = torch.from_numpy(store.flat("frames")) if cached else None
        self.dataset = WindowDataset(store, window, size=size, seed=seed, frames=frames)
        sample = torch.cat([self.dataset[i]["frames"] for i in range(min(1000, size))]).float() / 255
        if model.config.loss == "mse":
            self.pixel_weight = None
            self.scale = float(sample.var())
        else:
            self.pixel_weight = PixelWeight(store)
            self.scale = float((sample - sample.mean((0, 1, 2))).abs().mean())

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        frames = batch["frames"]
        weight = self.pixel_weight(frames) if self.pixel_weight else torch.ones(frames.shape[:-1], device=frames.device)
        out = self.model(frames, weight / self.scale)
        return out.total, {
            "reconstruction": out.reconstruction.item(),
            "codebook and commitment": (out.total - out.reconstruction).item(),
            "codebook usage": self.model.quantizer.usage,
            "perplexity": float(perplexity(out.codes, self.model.config.num_codes)),
        }

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        frames = _first(self.dataset, 8, "frames").to(self.model.quantizer.embedding.device)
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
    """Cross entropy of the next frame's codes, the reward and the termination, over windows of codes.

    - One window in ten has its actions withheld, so that one model serves both with and without actions.
    - A few of the codes that are looked back on are replaced by random ones, so that the prior learns to trust its
      memory over any one glimpse: in a dream the past is its own, imperfect, work.
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
        self.dataset = WindowDataset(store, self.window, size=size, seed=seed, frames=codes)
        self.salience = salience
        self.reward_values = world.dynamics.reward_values

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        codes, actions = batch["frames"].long(), batch["actions"]
        withheld = torch.rand(len(actions), 1, device=actions.device) < 0.1
        actions = actions.masked_fill(withheld, self.world.no_action)
        out = self.model(codes, actions, seen=self._blur(codes))
        nats = F.cross_entropy(out.logits.flatten(0, -2).float(), codes[:, 1:].flatten(), reduction="none")
        nats = nats.view(codes[:, 1:].shape)
        weight = self._weight(codes[:, :-1])
        reward_class = (batch["rewards"][..., None] - self.reward_values).abs().argmin(-1)
        reward = F.cross_entropy(out.reward_logits.flatten(0, 1).float(), reward_class.flatten())
        termination = F.binary_cross_entropy_with_logits(out.termination_logits.float(), batch["terminated"].float())
        return (nats * weight).mean() + reward + termination, {
            "bits per code": nats.mean().item() / math.log(2),
            "reward": reward.item(),
            "termination": termination.item(),
        }

    def _blur(self, codes: Tensor) -> Tensor:
        """Replace up to a tenth of a window's codes by codes from elsewhere in the batch."""
        share = 0.1 * torch.rand(len(codes), 1, 1, 1, device=codes.device)
        other = codes.flatten()[torch.randint(codes.numel(), codes.shape, device=codes.device)]
        return torch.where(torch.rand(codes.shape, device=codes.device) < share, other, codes)

    def _weight(self, past: Tensor) -> Tensor:
        """Largest salience in the 3x3 codes around, with mean one.  [B, T, h, w] -> [B, T, h, w]"""
        weight = F.max_pool2d(self.salience.to(past.device)[past], 3, stride=1, padding=1)
        return weight / weight.mean()

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        codes, actions = (
            _first(self.dataset, 4, name).long().to(self.salience.device) for name in ("frames", "actions")
        )
        given = self.window // 2
        state = self.world.observe_codes(codes[:, :given], actions[:, : given - 1])
        dream = self.world.imagine(state, actions[:, given - 1 :], rngs=generators(0, len(codes))).frames()
        truth = self.world.video.decode(codes)[:, given:]
        return {"truth and dream, row by row": tile(torch.stack([truth, dream], 1).flatten(0, 1))}

    def trouble(self) -> str | None:
        return None


def _first(dataset: WindowDataset, n: int, name: str) -> Tensor:
    """A field of the first n windows, or of all there are."""
    return torch.stack([dataset[i][name] for i in range(min(n, len(dataset)))])

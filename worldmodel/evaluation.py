"""What a tokenizer and a prior are worth on episodes that they were not trained on."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.code_statistics import CodeStatistics
from worldmodel.dynamics import Dynamics
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.metrics import Result, mask_iou, psnr, ssim
from worldmodel.quantizer import perplexity
from worldmodel.same_world import check_same
from worldmodel.video import VideoVQVAE
from worldmodel.world import WorldModel

Masks = Mapping[str, Callable[[Tensor], Tensor]]
"""Names of things that matter, and where they are: frames uint8 [..., H, W, 3] -> bool [..., H, W]."""


@dataclass
class CodedEpisode:
    """An episode of T steps as tensors, with the codes that a tokenizer gives its frames."""

    frames: Tensor  # uint8 [T+1, H, W, 3]
    codes: Tensor  # int64 [T+1, h, w]
    actions: Tensor  # int64 [T]
    rewards: Tensor  # float32 [T]
    terminated: Tensor  # bool [T]

    @classmethod
    def read(cls, store: EpisodeStore, i: int, video: VideoVQVAE) -> Self:
        """Episode `i` of a store, encoded from its first frame to its last."""
        episode = store[i]
        fields = (episode.frames, episode.actions, episode.rewards, episode.terminated)
        frames, actions, rewards, terminated = (torch.from_numpy(field).to(video.device) for field in fields)
        pieces: list[Tensor] = []
        for start in range(0, len(frames), 64):
            past = frames[None, max(start - video.config.memory, 0) : start] if start else None
            pieces.append(video.encode(frames[None, start : start + 64], past)[0])
        return cls(frames, torch.cat(pieces), actions, rewards, terminated)


def check_store(store: EpisodeStore, world: WorldModel) -> None:
    """Raise `UserError` when a store is empty, or its frames or actions are not the model's."""
    if not len(store):
        raise UserError(f"{store.address} is empty: record or import some episodes first.")
    meanings = store.provenance["action_meanings"]
    check_same("model", world.frame_shape, world.action_meanings, store.address, store.frame_shape, meanings)


def coded_episodes(store: EpisodeStore, world: WorldModel, limit: int | None = None) -> list[CodedEpisode]:
    """The first `limit` episodes of a store, or all."""
    return [CodedEpisode.read(store, i, world.video) for i in range(len(store))[:limit]]


def evaluate_tokenizer(video: VideoVQVAE, episodes: list[CodedEpisode], masks: Masks) -> Result:
    """Reconstructions beside the frames themselves (of every other frame the SSIM), and the use of the codebook."""
    decoded = [
        torch.cat([video.decode(piece[None])[0, skip:] for piece, skip in _clips(episode.codes, video.config.memory)])
        for episode in episodes
    ]
    pairs = [(d, e.frames) for d, e in zip(decoded, episodes, strict=True)]
    codes = torch.cat([e.codes.flatten() for e in episodes])
    k = video.config.num_codes
    return {
        "frames": sum(len(d) for d in decoded),
        "psnr": float(torch.cat([psnr(d, f) for d, f in pairs]).mean()),
        "ssim": float(torch.cat([ssim(d[::2], f[::2]) for d, f in pairs]).mean()),
        "codes": k,
        "codebook_usage": len(codes.unique()) / k,
        "code_perplexity": float(perplexity(codes, k)),
        "iou": {
            name: mask_iou(torch.cat([mask(d) for d, _ in pairs]), torch.cat([mask(f) for _, f in pairs]))
            for name, mask in masks.items()
        },
    }


def _clips(codes: Tensor, reach: int) -> list[tuple[Tensor, int]]:
    """An episode's codes in pieces, each led in by the few frames that its decoding looks back on, and their number."""
    starts = [(start, min(start, reach)) for start in range(0, len(codes), 64)]
    return [(codes[start - lead : start + 64], lead) for start, lead in starts]


def evaluate_prior(world: WorldModel, episodes: list[CodedEpisode], training: list[CodedEpisode]) -> Result:
    """Bits per code of whole episodes, streamed from their first frame: the prior's, and those of simple baselines.

    "shuffled" permutes the actions of each episode; "no action" withholds them all. The baselines are fitted on the
    codes of `training`: see `CodeStatistics`.
    """
    generator = torch.Generator().manual_seed(0)
    total, count = dict.fromkeys(("true", "shuffled", "none"), 0.0), 0
    for episode in episodes:
        order = torch.randperm(len(episode.actions), generator=generator).to(episode.actions.device)
        withheld = torch.full_like(episode.actions, world.no_action)
        variants = torch.stack([episode.actions, episode.actions[order], withheld])
        bits = stream_bits(world.dynamics, episode.codes.expand(3, -1, -1, -1), variants)
        for name, value in zip(total, bits.sum(1).tolist(), strict=True):
            total[name] += value
        count += len(episode.actions)
    statistics = CodeStatistics(*successions(training), world.num_codes)
    return {
        "order": world.config.dynamics.order,
        "bits_per_code": {name: value / count for name, value in total.items()},
        "baseline_bits_per_code": statistics.bits_per_code(*successions(episodes)),
        "baselines_fitted_on_episodes": len(training),
    }


@torch.no_grad()
def stream_bits(dynamics: Dynamics, codes: Tensor, actions: Tensor) -> Tensor:
    """Bits per code, float [B, T-1], of every frame but the first, int64 [B, T, h, w], given those before it.

    Piece by piece, each with the past that it depends on, so episodes of any length take the same space.
    """
    bits = []
    for start in range(1, codes.shape[1], 32):
        begin = max(start - dynamics.config.reach, 0)
        piece, moves = codes[:, begin : start + 32], actions[:, begin : start + 31]
        logits = dynamics.code_logits(piece, moves, given=start - begin)
        wide = torch.promote_types(logits.dtype, torch.float32)  # bfloat16 has too few digits for a logarithm
        after = piece[:, start - begin :]
        nats = F.cross_entropy(logits.flatten(0, -2).to(wide), after.flatten(), reduction="none")
        bits.append(nats.view(after.shape).mean((2, 3)) / math.log(2))
    return torch.cat(bits, 1)


def successions(episodes: list[CodedEpisode]) -> tuple[Tensor, Tensor]:
    """Every code of every frame but the last, int64 [N], and the one at its place in the next frame, int64 [N]."""
    before, after = (torch.cat([e.codes[part].flatten() for e in episodes]) for part in (slice(-1), slice(1, None)))
    return before, after

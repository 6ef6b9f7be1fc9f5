"""Do the codes of a frame keep what earns reward? A probe tells the sign of the next reward from them, or from pixels.

Whether a reward comes soon can be told from geometry alone, and a faithful picture may still have lost a small fruit:
the sign cannot be told without it.
"""

import copy
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.metrics import Result, roc_auc
from worldmodel.video import VideoVQVAE

WIDTH = 64  # channels of a probe
EPOCHS = 12
DRAWS = 1000  # of the bootstrap


@dataclass
class Foresight:
    """Frames with a reward at most so many steps ahead, and its sign."""

    frames: Tensor  # uint8 [N, H, W, 3]
    codes: Tensor  # int64 [N, h, w]
    positive: Tensor  # bool [N]: the next reward that is not zero is positive
    episode: Tensor  # int64 [N]

    @classmethod
    def read(cls, store: EpisodeStore, video: VideoVQVAE, *, within: int = 8, first_episode: int = 0) -> Self:
        """All such frames of a store; its episodes are numbered from `first_episode`."""
        parts = []
        for i in range(len(store)):
            episode = store[i]
            ahead = [(t, _next_sign(episode.rewards[t : t + within])) for t in range(len(episode))]
            times = np.array([t for t, sign in ahead if sign], np.int64)
            if not len(times):
                continue
            reach = np.arange(1 - video.config.memory, 1)  # a frame's codes depend on these frames
            clips = torch.from_numpy(episode.frames[np.maximum(times[:, None] + reach, 0)])
            codes = torch.cat([video.encode(piece)[:, -1].cpu() for piece in clips.split(32)])
            positive = torch.tensor([sign > 0 for _, sign in ahead if sign])
            parts.append((clips[:, -1], codes, positive, torch.full((len(times),), first_episode + i)))
        if not parts:
            raise UserError(f"{store.address} has no rewards: there is no sign to probe for.")
        return cls(*(torch.cat(field) for field in zip(*parts, strict=True)))

    def __getitem__(self, rows: Tensor) -> "Foresight":
        return Foresight(self.frames[rows], self.codes[rows], self.positive[rows], self.episode[rows])

    def __add__(self, other: "Foresight") -> "Foresight":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Foresight(*(torch.cat(pair) for pair in pairs))


class Probe(nn.Module):
    """A linear map a patch, of its code's embedding or of its pixels; then the same two convolutions and a score."""

    def __init__(self, data: Foresight, *, codebook: Tensor | None) -> None:
        """`codebook`: float [K, D] for a probe on codes, None for a probe on the pixels of the same patches."""
        super().__init__()
        _, rows, columns = data.codes.shape
        patch = data.frames.shape[1] // rows
        self.on_codes = codebook is not None
        if codebook is None:
            self.embed: nn.Module = nn.Conv2d(3, 32, patch, stride=patch)
        else:  # rare codes are told from their likeness to others, and from what is learned of themselves
            vectors = codebook / codebook.std()
            self.embed = nn.Sequential(
                nn.Embedding.from_pretrained(vectors, freeze=False), nn.Linear(len(vectors.T), 32)
            )
        self.score = nn.Sequential(
            nn.Conv2d(32, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(WIDTH * math.ceil(rows / 2) * math.ceil(columns / 2), 1),
        )

    def forward(self, data: Foresight) -> Tensor:
        """Scores, float [N]: higher for a positive reward."""
        embedded = self.embed(data.codes if self.on_codes else data.frames.movedim(-1, 1).float() / 255 - 0.5)
        return self.score(embedded.permute(0, 3, 1, 2) if self.on_codes else embedded).squeeze(-1)


def split(training: Foresight) -> tuple[Foresight, Foresight]:
    """What a probe learns from, and every fifth episode with rewards, which chooses when to stop."""
    chosen = torch.isin(training.episode, training.episode.unique()[4::5])
    return training[~chosen], training[chosen]


def evaluate_sign(training: Foresight, heldout: Foresight, codebook: Tensor, *, seeds: int = 5) -> Result:
    """AUC on `heldout` of probes trained on `training`, on codes and on pixels: mean and spread over seeds.

    The interval is a 95% bootstrap over the held-out episodes, of the scores averaged over the seeds; that of the
    difference is paired. Raises `UserError` where there are not enough rewards of both signs.
    """
    stopping = split(training)[1]
    for data, where in ((training, "training"), (stopping, "every fifth of the training"), (heldout, "held-out")):
        if data.positive.all() or not data.positive.any():
            raise UserError(
                f"The sign of rewards cannot be probed: both signs must occur in {where} episodes; record more, or "
                "leave sign out of --parts."
            )
    scores = {
        name: torch.stack([fit_probe(training, heldout, k, seed) for seed in range(seeds)])
        for name, k in (("codes", codebook), ("pixels", None))
    }
    result: Result = {
        "frames": len(heldout.codes),
        "positive": float(heldout.positive.float().mean()),
        "episodes": len(heldout.episode.unique()),
        "seeds": seeds,
    }
    for name, score in scores.items():
        aucs = torch.tensor([roc_auc(s, heldout.positive) for s in score])
        result[name] = {"auc": float(aucs.mean()), "spread": float(aucs.std()) if seeds > 1 else 0.0}
    codes, pixels = _bootstrap(torch.stack([s.mean(0) for s in scores.values()]), heldout)
    for name, values in (("codes", codes), ("pixels", pixels), ("codes_minus_pixels", codes - pixels)):
        result.setdefault(name, {})["interval"] = np.nanquantile(values, [0.025, 0.975]).tolist()
    return result


def fit_probe(training: Foresight, heldout: Foresight, codebook: Tensor | None, seed: int) -> Tensor:
    """Train a probe, on codes if their `codebook` is given, and score the held-out frames, float [N]."""
    torch.manual_seed(seed)
    train, check = split(training)
    probe = Probe(training, codebook=codebook)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3, weight_decay=0.05)
    best, kept = -1.0, copy.deepcopy(probe.state_dict())
    for _ in range(EPOCHS):
        probe.train()
        for rows in torch.randperm(len(train.codes)).split(64):
            batch = train[rows]
            F.binary_cross_entropy_with_logits(probe(batch), batch.positive.float()).backward()
            optimizer.step()
            optimizer.zero_grad()
        probe.eval()
        with torch.no_grad():
            auc = roc_auc(probe(check), check.positive)
        if auc > best:
            best, kept = auc, copy.deepcopy(probe.state_dict())
    probe.load_state_dict(kept)
    with torch.no_grad():
        return torch.cat([probe(heldout[rows]) for rows in torch.arange(len(heldout.codes)).split(256)])


def _next_sign(rewards: np.ndarray) -> float:
    """Sign of the first reward that is not zero, or 0."""
    nonzero = rewards[rewards != 0]
    return float(np.sign(nonzero[0])) if len(nonzero) else 0.0


def _bootstrap(scores: Tensor, data: Foresight) -> np.ndarray:
    """AUC of each row of scores [S, N] when episodes are drawn with replacement: float [S, DRAWS]."""
    rng = np.random.default_rng(0)
    rows = [torch.where(data.episode == e)[0] for e in data.episode.unique()]
    values = []
    for _ in range(DRAWS):
        drawn = torch.cat([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        values.append([roc_auc(score[drawn], data.positive[drawn]) for score in scores])
    return np.array(values).T

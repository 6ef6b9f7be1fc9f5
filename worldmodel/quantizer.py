"""The codebook: nearest-neighbour quantization with a straight-through gradient (the paper, §3.1-3.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.errors import UserError


@dataclass
class Quantized:
    """What the codebook makes of a batch of encoder outputs."""

    vectors: Tensor  # float [B, D, *]: the chosen embeddings; their gradient goes straight to the encoder
    codes: Tensor  # int64 [B, *], in [0, K)
    loss: Tensor  # scalar: the codebook and commitment terms of eq. 3, averaged over the N latents


class VectorQuantizer(nn.Module):
    """K embeddings of D dimensions; works on latents with any number of axes after the channels.

    With z = z_e(x) and e the nearest embedding (eq. 1-2), the loss is

        ||sg[z] - e||^2 + beta * ||z - sg[e]||^2          (the last two terms of eq. 3)

    averaged over the latents. Given `ema_decay` the first term is dropped and the dictionary follows its
    assigned encoder outputs by the moving averages of §3.2 instead.

    Codebook health: the embeddings start as encoder outputs of the first training batch, and an embedding that
    has all but fallen out of use restarts as a random encoder output of the current batch.

    Args:
        num_codes: K, the size of the dictionary.
        dim: D, the size of an embedding.
        beta: weight of the commitment term.
        ema_decay: gamma of §3.2, or None to learn the dictionary by gradient.
        unit_norm: compare and emit directions only: encoder outputs and embeddings are scaled to length one.
        rotation: give the encoder the gradient of the rotation and scaling that take z to e, in place of a copy of e's
            (the rotation trick, Fifty et al., 2024).
        restart_below: restart an embedding once its share of the latents falls below this fraction of an even
            share, 1 / K; 0 never restarts.

    Raises `UserError` for sizes and weights that make no sense.
    """

    cluster_size: Tensor
    cluster_sum: Tensor
    initialised: Tensor
    recent_share: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        beta: float = 0.25,
        ema_decay: float | None = None,
        unit_norm: bool = False,
        rotation: bool = False,
        restart_below: float = 0.1,
    ) -> None:
        super().__init__()
        if min(num_codes, dim) < 1 or not beta >= 0 or not (ema_decay is None or 0 < ema_decay < 1):
            raise UserError("A codebook has codes and dimensions, beta is 0 or more, and ema_decay is between 0 and 1.")
        if not 0 <= restart_below < 1:
            raise UserError(f"A codebook restarts codes below a part, 0 to 1, of an even share, not {restart_below}.")
        self.num_codes, self.dim, self.beta = num_codes, dim, beta
        self.ema_decay, self.unit_norm, self.rotation = ema_decay, unit_norm, rotation
        self.restart_below = restart_below
        embedding = torch.randn(num_codes, dim)
        self.embedding = nn.Parameter(self._on_sphere(embedding), requires_grad=ema_decay is None)  # [K, D]
        # N_i and m_i of §3.2. N_i also tells which codes have died, so it is kept whichever way the codes learn.
        self.register_buffer("cluster_size", torch.ones(num_codes))
        self.register_buffer("cluster_sum", self.embedding.detach().clone())
        self.register_buffer("initialised", torch.tensor(False))
        self.register_buffer("recent_share", torch.ones(num_codes), persistent=False)  # for people: restarts leave it

    def forward(self, z: Tensor) -> Quantized:
        """Quantize encoder outputs `z`, float [B, D, *]; in training mode the dictionary's statistics move too."""
        flat = self._flat(z)  # [N, D]
        if self.training:
            self._initialise(flat.detach())
        codes = self._nearest(flat)  # [N]
        # A copy, for a restart below may overwrite the dictionary before the gradient is taken.
        embedded = F.embedding(codes, self._on_sphere(self.embedding.clone()))  # [N, D]
        loss = self.beta * (flat - embedded.detach()).square().sum(1).mean()
        if self.ema_decay is None:
            loss = loss + (flat.detach() - embedded).square().sum(1).mean()
        if self.training:
            self._follow(flat.detach(), codes)
        way = _rotated(flat, embedded.detach()) if self.rotation else flat
        straight = way + (embedded - way).detach()
        codes = codes.view(z.shape[0], *z.shape[2:])
        return Quantized(rearrange(straight, "(b n) d -> b d n", b=z.shape[0]).reshape(z.shape), codes, loss)

    def encode(self, z: Tensor) -> Tensor:
        """Codes, int64 [B, *], of encoder outputs, float [B, D, *] (eq. 1)."""
        return self._nearest(self._flat(z)).view(z.shape[0], *z.shape[2:])

    def lookup(self, codes: Tensor) -> Tensor:
        """Embeddings, float [B, D, *], of codes, int64 [B, *] (eq. 2)."""
        return F.embedding(codes, self._on_sphere(self.embedding)).movedim(-1, 1)

    def _flat(self, z: Tensor) -> Tensor:
        """[B, D, *] -> [N, D], in no less than single precision."""
        precision = torch.promote_types(z.dtype, torch.float32)
        return self._on_sphere(rearrange(z, "b d ... -> (b ...) d").to(precision))

    def _nearest(self, flat: Tensor) -> Tensor:
        """Index of the nearest embedding: argmin ||z - e||^2, where ||z||^2 is the same for every e.  [N, D] -> [N]"""
        with torch.autocast(flat.device.type, enabled=False):  # in bfloat16 another embedding may look nearer
            embedding = self._on_sphere(self.embedding.to(flat.dtype))
            distance = embedding.square().sum(1) - 2 * flat @ embedding.T  # [N, K]
            return distance.argmin(1)

    def _on_sphere(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.unit_norm else vectors

    # No step below asks what a tensor holds, so that a GPU can do one after another without word from the CPU.

    @torch.no_grad()
    def _initialise(self, flat: Tensor) -> None:
        """Start from encoder outputs, unless that was done."""
        drawn, _ = self._draw(flat)
        for embeddings in (self.embedding, self.cluster_sum):
            embeddings.copy_(torch.where(self.initialised, embeddings, drawn))
        self.initialised.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, codes: Tensor) -> None:
        """Move N_i and m_i towards this batch, and with them a dictionary that follows averages; restart dead codes."""
        decay = 0.99 if self.ema_decay is None else self.ema_decay
        flat = flat.to(self.cluster_sum.dtype)
        # [K] 1 is an even share, whatever the batch size.
        share = _shares(codes, self.num_codes).to(flat.dtype) * self.num_codes
        total = torch.zeros_like(self.cluster_sum).index_add_(0, codes, flat) * (self.num_codes / codes.numel())
        self.recent_share.lerp_(share, 1 - decay)
        self.cluster_size.lerp_(share, 1 - decay)
        self.cluster_sum.lerp_(total, 1 - decay)
        if self.ema_decay is not None:
            used = self.cluster_size[:, None] > 1e-5  # of the others neither N_i nor m_i says anything any more
            average = self._on_sphere(self.cluster_sum / self.cluster_size[:, None].clamp_min(1e-5))
            self.embedding.copy_(torch.where(used, average, self.embedding))
        drawn, first = self._draw(flat)
        dead = (self.cluster_size < self.restart_below) & first
        for embeddings in (self.embedding, self.cluster_sum):
            embeddings.copy_(torch.where(dead[:, None], drawn, embeddings))
        self.cluster_size.masked_fill_(dead, 1.0)

    def _draw(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """K random rows of the batch, [K, D], and which of them are the first of their kind, bool [K].

        All are where the batch has as many: one from each of K even parts.
        """
        size, device = len(flat), flat.device
        order = torch.rand(self.num_codes, device=device).argsort()
        part = max(size / self.num_codes, 1.0)
        rows = ((order + torch.rand(self.num_codes, device=device)) * part).long()
        return flat[rows % size], order < size

    @property
    def usage(self) -> Tensor:
        """Fraction of the dictionary in use: codes with more than a tenth of an even share of recent latents.

        For whoever watches a training: it is not saved, and 1 until some batches were seen.
        """
        return (self.recent_share > 0.1).float().mean()


class Codebooks(nn.ModuleList):
    """M codebooks side by side, each for its share of the channels: a product of dictionaries."""

    def __iter__(self) -> Iterator[VectorQuantizer]:  # what it holds
        return super().__iter__()  # type: ignore[return-value]

    def forward(self, z: Tensor) -> Quantized:
        """What they make of encoder outputs, float [B, M * D, *]: codes are int64 [B, M, *], and losses add up."""
        each = [quantizer(part) for quantizer, part in self._parts(z)]
        vectors, codes = torch.cat([q.vectors for q in each], 1), torch.stack([q.codes for q in each], 1)
        return Quantized(vectors, codes, torch.stack([q.loss for q in each]).sum())

    def encode(self, z: Tensor) -> Tensor:
        """Codes, int64 [B, M, *], of encoder outputs, float [B, M * D, *]."""
        return torch.stack([quantizer.encode(part) for quantizer, part in self._parts(z)], 1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Embeddings, float [B, M * D, *], of codes, int64 [B, M, *]."""
        return torch.cat([quantizer.lookup(codes[:, m]) for m, quantizer in enumerate(self)], 1)

    @property
    def usage(self) -> Tensor:
        """Mean of theirs (see `VectorQuantizer.usage`)."""
        return torch.stack([quantizer.usage for quantizer in self]).mean()

    def _parts(self, z: Tensor) -> Iterator[tuple[VectorQuantizer, Tensor]]:
        return zip(self, z.chunk(len(self), 1), strict=True)


def _rotated(z: Tensor, e: Tensor) -> Tensor:
    """z, [N, D], turned by the rotation in the plane of z and e, and scaled, so that it is e; both are constants."""
    from_, to = F.normalize(z.detach(), dim=1), F.normalize(e, dim=1)
    between = F.normalize(from_ + to, dim=1)
    scale = e.norm(dim=1, keepdim=True) / z.detach().norm(dim=1, keepdim=True).clamp_min(1e-6)
    # A reflection that takes z's direction to -e's, then one that turns e's around.
    across = z - 2 * between * (between * z).sum(1, keepdim=True)
    return scale * (across + 2 * to * (from_ * z).sum(1, keepdim=True))


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """Perplexity of the codes' empirical distribution: K when all are used evenly, 1 when only one is."""
    p = _shares(codes.flatten(), num_codes)
    return torch.exp(-torch.xlogy(p, p).sum())


def _shares(codes: Tensor, num_codes: int) -> Tensor:
    """How much of codes, int64 [N], each is: float [K]."""
    each = torch.full(codes.shape, 1 / codes.numel(), device=codes.device)
    return torch.zeros(num_codes, device=codes.device).index_add_(0, codes, each)

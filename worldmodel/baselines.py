"""What §4.1 compares the VQ-VAE with: a VAE of Gaussian latents, and VIMCO's bound for discrete ones."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.image import ImageConfig, ImageEncoder, ImageLoss, image_decoder
from worldmodel.likelihood import LIKELIHOODS, single


class ImageVAE(nn.Module):
    """The VQ-VAE's encoder and decoder around independent Gaussian latents, [B, M * D, h, w] with a standard prior.

    Trained on the evidence lower bound, one reparameterised sample an image (Kingma & Welling, 2014).
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.likelihood = LIKELIHOODS[config.likelihood]
        self.encoder = ImageEncoder(config, 2 * config.features)
        self.decoder = image_decoder(config, config.features)

    def forward(self, images: Tensor) -> ImageLoss:
        """The negative bound, in nats a sub-pixel; the rate is KL(q(z|x) || p(z))."""
        mean, log_std = self.posterior(images)
        latents = mean + log_std.exp() * torch.randn_like(mean)
        distortion = self.likelihood.nats(self.decoder(latents), images)
        kl = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
        rate = kl.flatten(1).sum(1)
        return ImageLoss((distortion + rate).mean() / images[0].numel(), distortion, rate, None)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images uint8 [B, H, W, 3] from the means of their latents."""
        return self.likelihood.best(self.decoder(self.posterior(images)[0]))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z|x), float [B, M * D, h, w] each."""
        mean, log_std = single(self.encoder(images)).chunk(2, 1)
        return mean, log_std.clamp(-8, 4)


class ImageVIMCO(nn.Module):
    """The VQ-VAE's encoder and decoder around independent categorical latents, one embedding a value.

    Trained on the bound of S samples with VIMCO's leave-one-out signals (Mnih & Rezende, 2016); the prior is uniform.
    """

    def __init__(self, config: ImageConfig, samples: int = 50) -> None:
        """Raises `UserError` for fewer than two samples, which have nothing to be compared with."""
        super().__init__()
        if samples < 2:
            raise UserError(f"VIMCO takes two samples at least, not {samples}.")
        self.config, self.samples = config, samples
        self.likelihood = LIKELIHOODS[config.likelihood]
        self.encoder = ImageEncoder(config, config.maps * config.num_codes)
        self.embeddings = nn.ModuleList(nn.Embedding(config.num_codes, config.code_dim) for _ in range(config.maps))
        self.decoder = image_decoder(config, config.features)

    def forward(self, images: Tensor) -> ImageLoss:
        """The negative bound of S samples, in nats a sub-pixel, with a gradient whose mean is the bound's own.

        The rate is what one sample's codes take, log q(z|x) - log p(z), on average; the distortion is the rest of the
        bound.
        """
        codes, log_q, log_p = self.sample(images)
        log_ratio = log_q + codes[0, 0].numel() * math.log(self.config.num_codes)  # log q(z|x) - log p(z), [B, S]
        log_weight = log_p - log_ratio
        bound = log_mean_exp(log_weight)  # [B]
        surrogate = bound + (vimco_signal(log_weight.detach()) * log_q).sum(1)
        rate = log_ratio.mean(1).detach()
        total = -surrogate.mean() / images[0].numel()
        # The value is the bound's, the gradient the estimator's.
        total = total + ((surrogate - bound).mean() / images[0].numel()).detach()
        return ImageLoss(total, -bound.detach() - rate, rate, codes[:, 0])

    def sample(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """S draws from q(z|x): codes int64 [B, S, M, h, w], log q(z|x) and log p(x|z), float [B, S] each."""
        logits = rearrange(single(self.encoder(images)), "b (m k) h w -> b m h w k", m=self.config.maps)
        log_prob = F.log_softmax(logits, -1)  # [B, M, h, w, K]
        uniforms = torch.rand(*logits.shape[:-1], self.samples, dtype=logits.dtype, device=logits.device)
        drawn = torch.searchsorted(log_prob.detach().exp().cumsum(-1), uniforms, right=True)  # [B, M, h, w, S]
        drawn = drawn.clamp(max=self.config.num_codes - 1)  # where rounding left the sum below one
        log_q = log_prob.gather(-1, drawn).sum((1, 2, 3))  # [B, S]
        codes = drawn.movedim(-1, 1)
        outputs = self._decode(codes.flatten(0, 1))
        again = repeat(images, "b h w c -> (b s) h w c", s=self.samples)
        log_p = -self.likelihood.nats(outputs, again).view(len(images), self.samples)
        return codes, log_q, log_p

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images uint8 [B, H, W, 3] from the most probable codes."""
        logits = rearrange(self.encoder(images), "b (m k) h w -> b m h w k", m=self.config.maps)
        return self.likelihood.best(self._decode(logits.argmax(-1)))

    def _decode(self, codes: Tensor) -> Tensor:
        """int64 [B, M, h, w] -> outputs of the decoder."""
        vectors = [embedding(codes[:, m]).movedim(-1, 1) for m, embedding in enumerate(self.embeddings)]
        return self.decoder(torch.cat(vectors, 1))


def log_mean_exp(log_weight: Tensor) -> Tensor:
    """[B, S] -> [B]: the bound of S samples, whose mean never exceeds log p(x)."""
    return log_weight.logsumexp(1) - math.log(log_weight.shape[1])


def vimco_signal(log_weight: Tensor) -> Tensor:
    """The learning signal of each sample, float [B, S]: the bound, less what it would be without that sample.

    In the baseline the sample's weight is replaced by the geometric mean of the others', so that the signal does not
    depend on what it is compared with (eq. 7-8 of Mnih & Rezende, 2016). Needs two samples at least.
    """
    samples = log_weight.shape[1]
    others = (reduce(log_weight, "b s -> b 1", "sum") - log_weight) / (samples - 1)  # [B, S]
    without = log_weight[:, None].expand(-1, samples, -1).clone()  # [B, S, S]: row s is the batch without sample s
    without.diagonal(dim1=1, dim2=2).copy_(others)
    return log_mean_exp(log_weight)[:, None] - (without.logsumexp(2) - math.log(samples))

"""What models of images are worth on images that they were not trained on."""

import math

import torch
from torch import Tensor

from worldmodel.code_statistics import CodeStatistics
from worldmodel.errors import UserError, require
from worldmodel.image_data import Images
from worldmodel.image_model import ImageModel
from worldmodel.image_objectives import AnyImageModel
from worldmodel.image_recipe import encode_images
from worldmodel.likelihood import bits_per_dim
from worldmodel.metrics import Result, psnr, ssim
from worldmodel.quantizer import perplexity

AT_ONCE = 50  # images


@torch.no_grad()
def evaluate_bound(model: AnyImageModel, pixels: Tensor) -> Result:
    """Bits a sub-pixel, on average over images uint8 [N, H, W, 3]: rate, distortion and their sum, the bound.

    A VQ-VAE's rate is that of the uniform prior. Of a model trained on squared errors the sum bounds nothing.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()  # or its dictionary would learn from these images
    with torch.random.fork_rng(), torch.autocast(device.type, enabled=False):
        torch.manual_seed(0)
        parts = [model(part.to(device)) for part in pixels.split(AT_ONCE)]
    model.train(training)
    size = model.config.image_size
    rate, distortion = (
        float(bits_per_dim(torch.cat([getattr(part, name) for part in parts]), size).mean())
        for name in ("rate", "distortion")
    )
    return {"bits_per_dim": rate + distortion, "rate": rate, "distortion": distortion}


@torch.no_grad()
def evaluate_images(model: ImageModel, images: Images, training: Images) -> Result:
    """All that is said of a model of images, on held-out ones.

    - psnr, ssim: of reconstructions. codebook usage and perplexity: means over the maps.
    - bits per code: the prior's; unigram's; and what the code to the left tells, for "same" and "bigram" (see
      `CodeStatistics`), fitted on `training`. Codes without a left neighbour are left out of these three.
    - bits per dim, unless the decoder was trained on squared errors: under the uniform prior and under the learned one
      (given the label, where it knows classes).
    - second stage: bits per code of its decoder given the true latents, another image's, and an average latent.

    Raises `UserError` for images of other classes than the model's, and for a single one where there is to be another.
    """
    require("torchmetrics", "metrics")
    config, n = model.config.image, len(images)
    if images.classes != model.config.classes:
        raise UserError(
            f"The model knows the classes {', '.join(model.config.classes) or 'none'}, the images have "
            f"{', '.join(images.classes) or 'none'}: measure it on images of the kind that it was trained on."
        )
    if model.second_stage is not None and n < 2:
        raise UserError("Measuring with another image's latents takes two images at least: give more held-out ones.")
    device = model.vqvae.device
    codes = encode_images(model.vqvae, images.pixels).long().to(device)
    decoded = torch.cat([model.vqvae.decode(part).cpu() for part in codes.split(AT_ONCE)])
    labels = None if images.labels is None else images.labels.to(device)
    nats = -torch.cat([model.prior.log_prob(part, label=label) for part, label in _batches(codes, labels)])  # [N]
    count = codes[0].numel()
    result: Result = {
        "images": n,
        "psnr": float(psnr(decoded, images.pixels).mean()),
        "ssim": float(ssim(decoded, images.pixels).mean()),
        "codebook_usage": sum(len(m.unique()) for m in codes.transpose(0, 1)) / (config.maps * config.num_codes),
        "code_perplexity": sum(float(perplexity(m, config.num_codes)) for m in codes.transpose(0, 1)) / config.maps,
        "bits_per_code": {"prior": float(nats.mean()) / (count * math.log(2))},
    }
    result["bits_per_code"] |= _neighbours(
        encode_images(model.vqvae, training.pixels).long(), codes.cpu(), config.num_codes
    )
    if config.likelihood != "mse":
        pairs = zip(codes.split(AT_ONCE), images.pixels.to(device).split(AT_ONCE), strict=True)
        distortion = torch.cat([model.vqvae.likelihood.nats(model.vqvae.decode_outputs(c), p) for c, p in pairs])
        uniform = torch.full_like(distortion, count * math.log(config.num_codes))
        result["bits_per_dim"] = {
            "uniform prior": float(bits_per_dim(distortion + uniform, config.image_size).mean()),
            "learned prior": float(bits_per_dim(distortion + nats, config.image_size).mean()),
            "distortion alone": float(bits_per_dim(distortion, config.image_size).mean()),
        }
    if model.second_stage is not None:
        result["second_stage_bits_per_code"] = _second_stage(model, codes)
    return result


def _batches(codes: Tensor, labels: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    parts = codes.split(AT_ONCE)
    return [(part, None) for part in parts] if labels is None else list(zip(parts, labels.split(AT_ONCE), strict=True))


def _neighbours(training: Tensor, codes: Tensor, num_codes: int) -> dict[str, float]:
    """Bits per code, [N, M, h, w], by `CodeStatistics` of each map, whose means these are."""
    each = []
    for m in range(codes.shape[1]):
        pairs = [(c[:, m, :, :-1].flatten(), c[:, m, :, 1:].flatten()) for c in (training, codes)]
        each.append(CodeStatistics(*pairs[0], num_codes).bits_per_code(*pairs[1]))
    return {name: sum(bits[name] for bits in each) / len(each) for name in each[0]}


def _second_stage(model: ImageModel, codes: Tensor) -> dict[str, float]:
    """Bits per code given the latents of the same image, of another, and their mean over all images."""
    second = model.second_stage
    assert second is not None
    vectors = torch.cat([second.vector(second.encode(part)) for part in codes.split(AT_ONCE)])  # [N, G * D]
    given = {
        "true": vectors,
        "shuffled": vectors.roll(len(vectors) // 2, 0),
        "none": vectors.mean(0).expand_as(vectors),
    }
    bits = {}
    for name, vector in given.items():
        parts = zip(codes.split(AT_ONCE), vector.split(AT_ONCE), strict=True)
        nats = -torch.cat([second.decoder.log_prob(part, vector=v) for part, v in parts])
        bits[name] = float(nats.mean()) / (codes[0].numel() * math.log(2))
    return bits

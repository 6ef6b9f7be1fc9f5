"""The image VQ-VAE (§4.1, §4.2): a picture as a grid of discrete codes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldmodel.blocks import ResidualBlock, conv2d
from worldmodel.described import described
from worldmodel.errors import UserError
from worldmodel.likelihood import LIKELIHOODS, LikelihoodName, as_floats
from worldmodel.quantizer import Codebooks, VectorQuantizer


@dataclass(frozen=True)
class ImageConfig:
    """The shape of a model of images: a VQ-VAE, or one of the baselines that it is compared with."""

    image_size: tuple[int, int]
    """Height and width in pixels."""
    width: int = 256
    """Channels of the encoder and the decoder."""
    downsamplings: int = 2
    """Convolutions of stride two: a place of the grid of codes stands for a patch of 2^downsamplings pixels a side."""
    blocks: int = 2
    """Residual blocks of the encoder, and of the decoder."""
    maps: int = 1
    """Codes a place, each from a codebook of its own."""
    num_codes: int = 512
    code_dim: int = 64
    ema_decay: float | None = 0.99
    rotation: bool = False
    """How the gradient passes the codebook (see `VectorQuantizer`)."""
    likelihood: LikelihoodName = "mse"

    def __post_init__(self) -> None:
        patch = 2**self.downsamplings
        if len(self.image_size) != 2 or any(side < 1 or side % patch for side in self.image_size):
            size = "x".join(map(str, self.image_size))
            raise UserError(f"Images have a height and a width that divide into patches of side {patch}, not {size}.")
        counts = self.width, self.downsamplings, self.blocks, self.maps, self.num_codes, self.code_dim
        if min(counts) < 1:
            raise UserError("A model of images has one channel, layer, block, map, code and dimension at least.")
        if self.likelihood not in LIKELIHOODS:
            raise UserError(f'The likelihoods are {", ".join(LIKELIHOODS)}, not "{self.likelihood}".')
        if self.num_codes > 2**15:
            raise UserError(f"A dictionary has at most {2**15} codes, not {self.num_codes}.")

    @property
    def code_shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of codes."""
        return self.image_size[0] // 2**self.downsamplings, self.image_size[1] // 2**self.downsamplings

    @property
    def features(self) -> int:
        """Channels of the latents: all maps side by side."""
        return self.maps * self.code_dim


PRESETS = {
    "cifar10": ImageConfig((32, 32), maps=10, code_dim=16, likelihood="logistic"),  # 8x8x10 codes (§4.1)
    "imagenet": ImageConfig((128, 128)),  # 32x32x1 codes: 42.6 times fewer bits (§4.2)
    "dmlab": ImageConfig((84, 84), width=128),  # 21x21x1 codes (§4.2)
}


@dataclass
class ImageLoss:
    """What a model of images makes of a batch; what it minimises, and its parts.

    `rate` and `distortion` are in nats an image: what the latents take, and what the pixels take given them.
    """

    total: Tensor  # scalar
    distortion: Tensor  # float [B]: -log p(x|z)
    rate: Tensor  # float [B]
    codes: Tensor | None  # int64 [B, M, h, w], where the latents are discrete
    outputs: Tensor | None = None  # float [B, 3 * C, H, W]: what a VQ-VAE's decoder says of the pixels


class ImageVQVAE(nn.Module):
    """Encoder, one codebook a map, and a deterministic decoder, over images uint8 [B, H, W, 3].

    Codes are int64 [B, M, h, w], M maps of h x w. What is encoded or decoded may be on any device; what comes of it is
    on the model's.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.likelihood = LIKELIHOODS[config.likelihood]
        self.encoder = ImageEncoder(config, config.features)
        self.quantizers = Codebooks(
            VectorQuantizer(config.num_codes, config.code_dim, ema_decay=config.ema_decay, rotation=config.rotation)
            for _ in range(config.maps)
        )
        self.decoder = image_decoder(config, config.features)

    def forward(self, images: Tensor) -> ImageLoss:
        """Eq. 3. The first term counts in nats a sub-pixel, so that no image size changes its weight.

        The rate is that of the uniform prior of §3.2, log K a code: a constant.
        """
        quantized = self.quantizers(self.encoder(images))
        outputs = self.decoder(quantized.vectors)
        distortion = self.likelihood.nats(outputs, images)
        rate = torch.full_like(distortion, quantized.codes[0].numel() * math.log(self.config.num_codes))
        total = distortion.mean() / images[0].numel() + quantized.loss
        return ImageLoss(total, distortion, rate, quantized.codes, outputs)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes, int64 [B, M, h, w], of images, uint8 [B, H, W, 3].

        Raises `UserError` for images of another size or type.
        """
        size = (*self.config.image_size, 3)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != size:
            raise UserError(
                f"The model sees tensors of uint8 images [B, {', '.join(map(str, size))}], not {described(images)}."
            )
        return self.quantizers.encode(self.encoder(images.to(self.device)))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Images, uint8 [B, H, W, 3], of codes, int64 [B, M, h, w]."""
        return self.likelihood.best(self.decode_outputs(codes))

    def decode_outputs(self, codes: Tensor) -> Tensor:
        """What the decoder says of the pixels, float [B, 3 * C, H, W] (see `Likelihood`), given codes [B, M, h, w]."""
        return self.decoder(self.quantizers.lookup(codes.to(self.device)))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images, uint8 [B, H, W, 3], as their codes keep them."""
        return self.decode(self.encode(images))

    @property
    def device(self) -> torch.device:
        return self.encoder.first.weight.device


class ImageEncoder(nn.Module):
    """4x4 convolutions of stride two, then residual blocks (§4.1)."""

    def __init__(self, config: ImageConfig, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, config.width, 4, stride=2, padding=1)
        layers: list[nn.Module] = []
        for _ in range(config.downsamplings - 1):
            layers += [nn.ReLU(), nn.Conv2d(config.width, config.width, 4, stride=2, padding=1)]
        layers += [ResidualBlock(config.width, conv2d) for _ in range(config.blocks)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), conv2d(config.width, outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> float [B, outputs, h, w]."""
        return self.layers(self.first(as_floats(images, self.first.weight.dtype)))


def image_decoder(config: ImageConfig, inputs: int) -> nn.Sequential:
    """The encoder's mirror (§4.1), up to what the likelihood asks: [B, inputs, h, w] -> [B, 3 * C, H, W]."""
    layers: list[nn.Module] = [conv2d(inputs, config.width, 3)]
    layers += [ResidualBlock(config.width, conv2d) for _ in range(config.blocks)]
    for _ in range(config.downsamplings - 1):
        layers += [nn.ReLU(), nn.ConvTranspose2d(config.width, config.width, 4, stride=2, padding=1)]
    outputs = 3 * LIKELIHOODS[config.likelihood].outputs
    return nn.Sequential(*layers, nn.ReLU(), nn.ConvTranspose2d(config.width, outputs, 4, stride=2, padding=1))

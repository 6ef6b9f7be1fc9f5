"""The second stage of §4.2: a whole grid of codes as a few global codes, with a PixelCNN for decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldmodel.blocks import ResidualBlock, conv2d
from worldmodel.errors import UserError
from worldmodel.pixelcnn import PixelCNN, PixelCNNConfig
from worldmodel.quantizer import Codebooks, VectorQuantizer


@dataclass(frozen=True)
class GlobalConfig:
    """The shape of a second stage over grids of h x w codes."""

    code_shape: tuple[int, int]
    num_codes: int
    """K of the grid's codes."""
    latents: int = 3
    """Global codes a grid, each from a codebook of its own."""
    num_latent_codes: int = 512
    latent_dim: int = 32
    width: int = 128
    layers: int = 8
    """Gated layers of the decoder."""

    def __post_init__(self) -> None:
        if min(*self.code_shape, self.latents, self.num_latent_codes, self.latent_dim, self.width, self.layers) < 1:
            raise UserError("A second stage has one row, column, latent, code, dimension, channel and layer at least.")


@dataclass
class GlobalLoss:
    """What the second stage makes of a batch of grids."""

    total: Tensor  # scalar
    nats: Tensor  # float [B]: -log p(grid | latents)
    latents: Tensor  # int64 [B, G]


class GlobalVQVAE(nn.Module):
    """Grids of codes, int64 [B, 1, h, w], to G global codes, int64 [B, G], and back by sampling.

    Nothing but the quantized latents passes from the encoder to the decoder. The decoder could do without them, for it
    is a prior by itself; having no KL term to gain from that, it does not (§4.2).
    """

    def __init__(self, config: GlobalConfig) -> None:
        super().__init__()
        self.config = config
        width, (rows, columns) = config.width, config.code_shape
        layers: list[nn.Module] = []
        while max(rows, columns) > 4:
            layers += [conv2d(width, width, 3, stride=2), ResidualBlock(width, conv2d), nn.ReLU()]
            rows, columns = -(-rows // 2), -(-columns // 2)
        features = config.latents * config.latent_dim
        self.embed = nn.Embedding(config.num_codes, width)
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * rows * columns, features))
        self.quantizers = Codebooks(
            VectorQuantizer(config.num_latent_codes, config.latent_dim, ema_decay=0.99) for _ in range(config.latents)
        )
        decoder = PixelCNNConfig(
            config.code_shape, config.num_codes, width=width, layers=config.layers, vector=features
        )
        self.decoder = PixelCNN(decoder)

    def forward(self, codes: Tensor) -> GlobalLoss:
        """Eq. 3 as it stands, its first term the PixelCNN's -log p of all codes, in nats a code."""
        quantized = self.quantizers(self._encoded(codes))
        nats = -self.decoder.log_prob(codes, vector=quantized.vectors)
        return GlobalLoss((nats.mean() + quantized.loss) / codes[0].numel(), nats, quantized.codes)

    @torch.no_grad()
    def encode(self, codes: Tensor) -> Tensor:
        """Global codes, int64 [B, G], of grids, int64 [B, 1, h, w]."""
        return self.quantizers.encode(self._encoded(codes))

    def vector(self, latents: Tensor) -> Tensor:
        """What the decoder is given: float [B, G * D] of global codes, int64 [B, G]."""
        return self.quantizers.lookup(latents)

    def _encoded(self, codes: Tensor) -> Tensor:
        """[B, 1, h, w] -> [B, G * D]."""
        return self.encoder(self.embed(codes[:, 0]).permute(0, 3, 1, 2))

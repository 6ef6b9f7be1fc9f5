"""What is kept of images: a VQ-VAE, the prior over its codes, and where there is one a second stage (§4.1, §4.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.folders import check_place, find_model, read_config, read_model, with_tuples, write_model
from worldmodel.image import ImageConfig, ImageVQVAE
from worldmodel.pixelcnn import PixelCNN, PixelCNNConfig
from worldmodel.two_stage import GlobalConfig, GlobalVQVAE


@dataclass(frozen=True)
class ImageModelConfig:
    """All that a folder of weights needs to draw images again."""

    image: ImageConfig
    prior: PixelCNNConfig
    second_stage: GlobalConfig | None = None
    classes: tuple[str, ...] = ()
    """Names of the classes that the prior knows apart, in the order of their labels."""

    def __post_init__(self) -> None:
        grid = self.image.code_shape, self.image.num_codes
        second = self.second_stage
        agree = (*grid, self.image.maps) == (self.prior.code_shape, self.prior.num_codes, self.prior.maps)
        if second is not None:
            agree = agree and (*grid, self.image.maps) == (second.code_shape, second.num_codes, 1)
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise UserError("Classes are named by texts.")
        if not agree or self.prior.classes != len(self.classes):
            raise UserError("The VQ-VAE, the prior and the second stage are of different codes or classes.")


class ImageModel(nn.Module):
    """Codes are drawn by the prior and decoded to pixels by the VQ-VAE.

    Images may be given on any device; those that come back are in the CPU's memory.
    """

    def __init__(self, config: ImageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vqvae = ImageVQVAE(config.image)
        self.prior = PixelCNN(config.prior)
        self.second_stage = None if config.second_stage is None else GlobalVQVAE(config.second_stage)

    @torch.no_grad()
    def sample(self, n: int, *, label: int | None = None, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """`n` new images, uint8 [N, H, W, 3]; of one class, where the prior knows classes.

        Raises `UserError` for fewer than one image, for a label where there are no classes, for none where there are,
        and for one out of range.
        """
        if n < 1:
            raise UserError(f"There is one image to draw at least, not {n}.")
        labels = None if label is None else torch.full((n,), label, device=self.vqvae.device)
        codes, _ = self.prior.sample(self._uniforms(n, seed), label=labels, temperature=temperature)
        return self.vqvae.decode(codes).cpu()

    @torch.no_grad()
    def resample(self, images: Tensor, *, seed: int = 0) -> Tensor:
        """Images, uint8 [B, H, W, 3], as the second stage's few global codes keep them: its decoder's draws (Figure 5).

        Raises `UserError` where there is no second stage.
        """
        if self.second_stage is None:
            raise UserError("This model has no second stage: train one with --preset dmlab.")
        latents = self.second_stage.encode(self.vqvae.encode(images))
        uniforms = self._uniforms(len(images), seed)
        codes, _ = self.second_stage.decoder.sample(uniforms, vector=self.second_stage.vector(latents))
        return self.vqvae.decode(codes).cpu()

    def _uniforms(self, n: int, seed: int) -> Tensor:
        """Numbers in [0, 1) for the codes of n images, float [N, M, h, w]."""
        shape = (n, self.config.image.maps, *self.config.image.code_shape)
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(self.vqvae.device)

    def save_pretrained(self, folder: str | Path, *, card: str) -> None:
        """Write `config.json`, `model.safetensors` (bfloat16) and `README.md`.

        A model that is there already is replaced as a whole; raises `UserError` where something else is.
        """
        write_model(folder, "image", self, self.config, card)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: torch.device | str = "cpu") -> Self:
        """Load a bundled model by its name, a folder by its path, or a Hub repository by its id.

        Raises `UserError` when there is no such model or device, it is not one of images, or its files are damaged.
        """
        check_place(device)
        folder = find_model(name, "image")
        config = read_config(folder, "image", _parse)
        return read_model(folder, lambda: cls(config)).to(device)


def _parse(raw: dict[str, Any]) -> ImageModelConfig:
    second = raw["second_stage"]
    return ImageModelConfig(
        ImageConfig(**with_tuples(raw["image"])),
        PixelCNNConfig(**with_tuples(raw["prior"])),
        None if second is None else GlobalConfig(**with_tuples(second)),
        **with_tuples({"classes": raw["classes"]}),
    )

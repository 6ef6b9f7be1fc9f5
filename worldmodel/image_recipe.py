"""From a set of images to a model of them: the VQ-VAE, the prior over its codes, the second stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from worldmodel.errors import UserError
from worldmodel.image import PRESETS, ImageConfig, ImageVQVAE
from worldmodel.image_data import Images
from worldmodel.image_model import ImageModel, ImageModelConfig
from worldmodel.image_objectives import AdversarialObjective, CodesObjective, GlobalObjective, ImageObjective
from worldmodel.pixelcnn import PixelCNNConfig
from worldmodel.progress import track
from worldmodel.training import FitConfig, Objective, check_schedules, fit
from worldmodel.two_stage import GlobalConfig

ENCODED_AT_ONCE = 64  # images


@dataclass
class ImageRecipe:
    """What is trained, and for how long."""

    preset: Literal["cifar10", "imagenet", "dmlab"] = "cifar10"
    """Shape of the model: "cifar10" (32x32, 8x8x10 codes), "imagenet" (128x128, 32x32 codes) or "dmlab" (84x84, 21x21
    codes, and a second stage of three codes an image)."""
    steps: int = 20_000
    """Steps of the VQ-VAE; with 0 it stays what it is at the start."""
    batch: int = 32
    lr: float = 1e-3
    """Peak learning rate of the VQ-VAE."""
    critic: float = 0.0
    """What it counts to be taken for real by a critic of patches that learns beside the VQ-VAE, in nats a patch where
    squared errors are in nats a sub-pixel; 0 leaves it out. .05 gives sharper pictures that are less exact."""
    prior_steps: int = 10_000
    prior_batch: int = 16
    prior_lr: float = 2e-3
    """Peak learning rate of the prior, and of the second stage."""
    second_steps: int = 10_000
    """Steps of the second stage, where the preset has one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.critic < float("inf") or (self.critic and PRESETS[self.preset].likelihood != "mse"):
            raise UserError("A critic counts 0 or more, and looks at pictures: there is none for cifar10.")
        if min(self.prior_steps, self.second_steps) < 1 or self.steps < 0:
            raise UserError("Steps are 1 or more (--steps 0 or more).")
        check_schedules((self.batch, self.prior_batch), (self.lr, self.prior_lr), self.seed)


def check_trainable(images: Images, recipe: ImageRecipe, start: ImageModel | None = None) -> None:
    """Raise `UserError` for whatever would stop the training of a model of `images` later on."""
    if start is None and not recipe.steps:
        raise UserError("A VQ-VAE from scratch learns nothing in 0 steps: give it some, or a model to start from.")
    if start is not None and start.config != _model_config(images, recipe):
        raise UserError("The model to start from has other shapes or classes; train without --init.")


def learn_images(
    images: Images, recipe: ImageRecipe, folder: Path, device: str, *, start: ImageModel | None = None
) -> ImageModel:
    """Train all parts of a model of `images`, of the preset's size, or go on with them, in `folder`.

    They begin with the weights of `start`, if given.
    """
    config = _model_config(images, recipe)
    given = None if start is None else start.vqvae
    vqvae = learn_vqvae(images, config.image, recipe, folder / "vqvae", device, start=given)
    codes = encode_images(vqvae, images.pixels)
    torch.manual_seed(recipe.seed)
    model = ImageModel(config).to(device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    model.vqvae = vqvae
    prior = CodesObjective(model.prior, codes, images.labels, seed=recipe.seed)
    fit(prior, FitConfig(recipe.prior_steps, recipe.prior_batch, recipe.prior_lr, recipe.seed), folder / "prior")
    if model.second_stage is not None:
        objective = GlobalObjective(model.second_stage, codes, seed=recipe.seed)
        schedule = FitConfig(recipe.second_steps, recipe.prior_batch, recipe.prior_lr, recipe.seed)
        fit(objective, schedule, folder / "second_stage")
    return model.bfloat16().float().eval()  # as it will be saved


def learn_vqvae(
    images: Images,
    config: ImageConfig,
    recipe: ImageRecipe,
    folder: Path,
    device: str,
    *,
    start: ImageVQVAE | None = None,
) -> ImageVQVAE:
    """Train a VQ-VAE, or go on with it, in `folder`; its weights are rounded to what will be saved.

    It begins with the weights of `start`, if given.
    """
    torch.manual_seed(recipe.seed)
    vqvae = ImageVQVAE(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        vqvae.load_state_dict(start.state_dict())
    objective: Objective
    if recipe.critic:
        objective = AdversarialObjective(vqvae, images, recipe.critic, seed=recipe.seed)
    else:
        objective = ImageObjective(vqvae, images, seed=recipe.seed)
    fit(objective, FitConfig(recipe.steps, recipe.batch, recipe.lr, recipe.seed), folder)
    return vqvae.bfloat16().float().eval()


@torch.no_grad()
def encode_images(vqvae: ImageVQVAE, pixels: Tensor) -> Tensor:
    """Codes, int16 [N, M, h, w], of images, uint8 [N, H, W, 3]; K is at most 2^15."""
    parts = track(pixels.split(ENCODED_AT_ONCE), "Encoding images")
    return torch.cat([vqvae.encode(part).short().cpu() for part in parts])


def _model_config(images: Images, recipe: ImageRecipe) -> ImageModelConfig:
    image = PRESETS[recipe.preset]
    shape = {"code_shape": image.code_shape, "num_codes": image.num_codes}
    prior = PixelCNNConfig(**shape, maps=image.maps, classes=len(images.classes))  # type: ignore[arg-type]
    second = GlobalConfig(**shape) if recipe.preset == "dmlab" else None  # type: ignore[arg-type]
    return ImageModelConfig(image, prior, second, images.classes)

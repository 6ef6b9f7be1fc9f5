"""What the models of images are trained for: eq. 3 or its rivals on pixels, then likelihood on codes."""

import math

import torch
from torch import Tensor, nn

from worldmodel.baselines import ImageVAE, ImageVIMCO
from worldmodel.critic import Critic
from worldmodel.errors import UserError
from worldmodel.image import ImageVQVAE
from worldmodel.image_data import Images
from worldmodel.likelihood import as_floats, bits_per_dim
from worldmodel.pictures import tile
from worldmodel.pixelcnn import PixelCNN
from worldmodel.quantizer import perplexity
from worldmodel.rows import RandomRows
from worldmodel.step import Batch
from worldmodel.two_stage import GlobalVQVAE

AnyImageModel = ImageVQVAE | ImageVAE | ImageVIMCO


class ImageObjective:
    """The loss of a VQ-VAE, a VAE or VIMCO on random images."""

    name = "images"

    def __init__(self, model: AnyImageModel, images: Images, *, seed: int = 0) -> None:
        self.model = model
        self.dataset = RandomRows({"images": images.pixels}, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.model(batch["images"])
        size = self.model.config.image_size
        parts = {"distortion": out.distortion, "rate": out.rate}
        if self.model.config.likelihood != "mse":
            parts["bits per dim"] = out.distortion + out.rate
        scalars = {name: bits_per_dim(x, size).mean() for name, x in parts.items()}
        if out.codes is not None:
            maps = out.codes.transpose(0, 1)  # [M, B, h, w]
            scalars["perplexity"] = torch.stack([perplexity(m, self.model.config.num_codes) for m in maps]).mean()
        return out.total, scalars

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        images = self.dataset.batch(0, 8)["images"].to(next(self.model.parameters()).device)
        return {"given (top), reconstructed (bottom)": tile(torch.stack([images, self.model.reconstruct(images)]))}

    def trouble(self) -> str | None:
        if isinstance(self.model, ImageVQVAE) and (usage := self.model.quantizers.usage) < 0.2:
            return f"The codebook is collapsing: {usage:.0%} of its codes are in use."
        return None


class AdversarialObjective:
    """The loss of a VQ-VAE whose decoder makes pictures, and of the critic that it is to be taken for real by."""

    name = "images"

    def __init__(self, vqvae: ImageVQVAE, images: Images, weight: float, *, seed: int = 0) -> None:
        """`weight`: what the critic's opinion counts, in nats a patch beside nats a sub-pixel.

        Raises `UserError` for a decoder that says how likely each value is: there is no picture for a gradient.
        """
        if vqvae.config.likelihood != "mse":
            raise UserError("A critic looks at pictures: it takes a model that is trained on squared errors.")
        self.plain, self.weight = ImageObjective(vqvae, images, seed=seed), weight
        self.dataset = self.plain.dataset
        self.vqvae, self.critic = vqvae, Critic().to(vqvae.device)
        self.model = nn.ModuleList([self.vqvae, self.critic])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["images"]
        out = self.vqvae(images)
        told_apart, taken_for_real = self.critic.losses(as_floats(images), out.outputs)
        distortion = bits_per_dim(out.distortion, self.vqvae.config.image_size).mean()
        scalars = {"distortion": distortion, "critic": told_apart, "taken for real": taken_for_real}
        return out.total + told_apart + self.weight * taken_for_real, scalars

    def pictures(self) -> dict[str, Tensor]:
        return self.plain.pictures()

    def trouble(self) -> str | None:
        return self.plain.trouble()


class CodesObjective:
    """-log p of a PixelCNN on grids of codes, class by class where they have labels."""

    name = "prior"

    def __init__(self, model: PixelCNN, codes: Tensor, labels: Tensor | None, *, seed: int = 0) -> None:
        """`codes`: [N, M, h, w], of any integer type; `labels`: int64 [N]."""
        self.model = model
        fields = {"codes": codes} if labels is None else {"codes": codes, "labels": labels}
        self.dataset = RandomRows(fields, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        codes = batch["codes"].long()
        nats = -self.model.log_prob(codes, label=batch.get("labels")).mean() / codes[0].numel()
        return nats, {"bits per code": nats / math.log(2)}

    def pictures(self) -> dict[str, Tensor]:
        return {}  # codes are no pictures

    def trouble(self) -> str | None:
        return None


class GlobalObjective:
    """The loss of a second stage on grids of codes."""

    name = "second stage"

    def __init__(self, model: GlobalVQVAE, codes: Tensor, *, seed: int = 0) -> None:
        """`codes`: [N, 1, h, w], of any integer type."""
        self.model = model
        self.dataset = RandomRows({"codes": codes}, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.model(batch["codes"].long())
        bits = out.nats.mean() / (math.log(2) * batch["codes"][0].numel())
        return out.total, {"bits per code": bits, "codebook usage": self.model.quantizers.usage}

    def pictures(self) -> dict[str, Tensor]:
        return {}

    def trouble(self) -> str | None:
        return None

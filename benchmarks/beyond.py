"""Past the paper: what §3.3 and §4.2 name as future work, and two later codebooks, each beside the plain VQ-VAE.

    python benchmarks/beyond.py --data DATA/cifar10 --frames stores/explore_train --test-frames stores/explore_test

On images of CIFAR-10, by bits a sub-pixel under the uniform prior and under a small PixelCNN's:

- rotation: the rotation trick (Fifty et al., 2024).
- fsq: finite scalar quantization (Mentzer et al., 2023), of 8 x 8 x 8 = 512 codes.
- joint: prior and VQ-VAE trained together, so that the encoder learns to make codes that the prior foresees (§3.3).

On frames of DeepMind Lab, by what becomes of held-out ones:

- adversarial: a critic learns to tell reconstructions from frames, and the VQ-VAE to be taken for them (§4.2).

Writes OUT/beyond.json; run it again after an interruption, and finished rows are kept.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from worldmodel.benchmark.drift import Drift, frame_features
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.image import PRESETS, ImageVQVAE
from worldmodel.image_data import Images, load_images
from worldmodel.image_evaluation import AT_ONCE, evaluate_bound
from worldmodel.image_objectives import CodesObjective, ImageObjective
from worldmodel.image_recipe import encode_images
from worldmodel.likelihood import bits_per_dim, single
from worldmodel.metrics import Result, gradient_energy, psnr, ssim
from worldmodel.pixelcnn import PixelCNN, PixelCNNConfig
from worldmodel.quantizer import Codebooks, Quantized
from worldmodel.step import Batch
from worldmodel.training import FitConfig, fit

LEVELS = 8, 8, 8


@dataclass
class Args:
    data: str
    """CIFAR-10, in any of the layouts that `worldmodel train-image` reads."""
    frames: str
    """Episodes of DeepMind Lab to learn from, as a store."""
    test_frames: str
    out: Path = Path("runs/beyond")
    codebooks: tuple[str, ...] = ("plain", "rotation", "fsq", "joint")
    critics: tuple[float, ...] = (0.0, 0.02, 0.1)
    """What the adversarial term counts, beside the squared error in nats a sub-pixel; 0 is the plain VQ-VAE."""
    steps: int = 4_000
    """Of a VQ-VAE of CIFAR-10, and again of its prior."""
    frame_steps: int = 1_500
    batch: int = 16
    lr: float = 1e-3
    width: int = 64
    """Channels of the models of CIFAR-10."""
    test_images: int = 500


class FiniteScalarQuantizer(nn.Module):
    """D numbers, each rounded to one of L values: a code is a place of their grid, and nothing of it is learned.

    Takes the place of a `VectorQuantizer`. The gradient passes the rounding as it is.
    """

    usage = torch.tensor(1.0)  # nothing to watch: there is no dictionary that could collapse

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        sizes = torch.tensor((1, *levels))
        self.levels: Tensor  # int64 [D]
        self.unit: Tensor  # int64 [D]: what a step of a dimension counts in the code
        self.register_buffer("levels", sizes[1:], persistent=False)
        self.register_buffer("unit", sizes[:-1].cumprod(0), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        steps = self._steps(z)
        straight = steps + (steps.round() - steps).detach()
        return Quantized(self._centred(straight).movedim(-1, 1), self._codes(steps), z.new_zeros(()))

    def encode(self, z: Tensor) -> Tensor:
        return self._codes(self._steps(z))

    def lookup(self, codes: Tensor) -> Tensor:
        return self._centred((codes[..., None] // self.unit % self.levels).float()).movedim(-1, 1)

    def _steps(self, z: Tensor) -> Tensor:
        """[B, D, *] -> [B, *, D], between -.5 and L - .5, but never at either."""
        return single(z.movedim(1, -1)).sigmoid() * (self.levels - 1e-3) - (0.5 - 5e-4)

    def _codes(self, steps: Tensor) -> Tensor:
        return (steps.round().long() * self.unit).sum(-1)

    def _centred(self, steps: Tensor) -> Tensor:
        """0 to L - 1 -> -1 to 1."""
        return 2 * steps / (self.levels - 1) - 1


class Joint(nn.Module):
    def __init__(self, vqvae: ImageVQVAE, prior: PixelCNN) -> None:
        super().__init__()
        self.vqvae, self.prior = vqvae, prior


class JointObjective(ImageObjective):
    """Eq. 3, and -log p(codes) of the prior.

    A code has no gradient. So the encoder is told what each other code would take in its place, given those before it,
    as much as it is near: the more the nearer, in units of the mean distance of what it makes to its code.
    """

    def __init__(self, joint: Joint, images: Images) -> None:
        super().__init__(joint.vqvae, images)
        self.model = joint  # type: ignore[assignment]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        joint, images = self.model, batch["images"]
        assert isinstance(joint, Joint)
        latents, quantized, outputs = _forward(joint.vqvae, images)
        codes = torch.stack([q.codes for q in quantized], 1)
        nats = -single(joint.prior(codes)).log_softmax(2).movedim(2, -1)  # [B, M, h, w, K]
        rate = nats.gather(-1, codes[..., None]).flatten(1).sum(1)
        near = torch.stack([_nearness(q.embedding, z) for q, z in zip(joint.vqvae.quantizers, latents, strict=True)], 1)
        told = (near * nats.detach()).flatten(1).sum(1)
        distortion = joint.vqvae.likelihood.nats(outputs, images)
        bits = {name: bits_per_dim(x, images.shape[1:3]).mean() for name, x in (("rate", rate), ("of", distortion))}
        total = (distortion + rate + told - told.detach()).mean() / images[0].numel()
        return total + torch.stack([q.loss for q in quantized]).sum(), bits

    def pictures(self) -> dict[str, Tensor]:
        return {}

    def trouble(self) -> str | None:
        return None


def _nearness(embedding: Tensor, z: Tensor) -> Tensor:
    """How near each embedding, [K, D], is to each of [B, D, h, w]: shares, float [B, h, w, K]."""
    away = (single(z).movedim(1, -1)[..., None, :] - embedding.detach()).square().sum(-1)
    return (-away / away.detach().amin(-1).mean().clamp(min=1e-8)).softmax(-1)


class Adversaries(nn.Module):
    """A VQ-VAE, and a critic that sees patches of 22 pixels a side."""

    def __init__(self, vqvae: ImageVQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.LeakyReLU(0.2)]
        self.critic = nn.Sequential(*layers, nn.Conv2d(256, 1, 1))  # logits of being a frame


class AdversarialObjective(ImageObjective):
    """Eq. 3 with a critic: one loss for both, whose gradients are kept apart (the non-saturating one of GANs)."""

    def __init__(self, adversaries: Adversaries, images: Images, weight: float) -> None:
        super().__init__(adversaries.vqvae, images)
        self.model, self.weight = adversaries, weight  # type: ignore[assignment]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        adversaries, images = self.model, batch["images"]
        assert isinstance(adversaries, Adversaries)
        _, quantized, outputs = _forward(adversaries.vqvae, images)
        real = images.permute(0, 3, 1, 2) / 255 - 0.5
        critic = adversaries.critic
        frozen = {name: weight.detach() for name, weight in critic.named_parameters()}
        taken_for_real = F.softplus(-torch.func.functional_call(critic, frozen, (outputs,))).mean()
        told_apart = F.softplus(-critic(real)).mean() + F.softplus(critic(outputs.detach())).mean()
        distortion = adversaries.vqvae.likelihood.nats(outputs, images).mean() / images[0].numel()
        codebooks = torch.stack([q.loss for q in quantized]).sum()
        scalars = {"distortion": distortion, "told apart": told_apart, "taken for real": taken_for_real}
        return distortion + codebooks + told_apart + self.weight * taken_for_real, scalars

    def pictures(self) -> dict[str, Tensor]:
        return {}

    def trouble(self) -> str | None:
        return None


def _forward(vqvae: ImageVQVAE, images: Tensor) -> tuple[tuple[Tensor, ...], list[Quantized], Tensor]:
    """The latents of each map, [B, D, h, w], what the codebooks make of them, and the decoder's outputs."""
    latents = vqvae.encoder(images).chunk(vqvae.config.maps, 1)
    quantized = [quantizer(part) for quantizer, part in zip(vqvae.quantizers, latents, strict=True)]
    return latents, quantized, vqvae.decoder(torch.cat([q.vectors for q in quantized], 1))


def measure_codebook(name: str, args: Args, train: Images, test: Images) -> Result:
    """Bits a sub-pixel of held-out images, of a model trained for `args.steps`, and its prior for as many."""
    config = dataclasses.replace(PRESETS["cifar10"], width=args.width, rotation=name == "rotation")
    if name == "fsq":
        config = dataclasses.replace(config, code_dim=len(LEVELS))
    torch.manual_seed(0)
    vqvae = ImageVQVAE(config)
    if name == "fsq":
        vqvae.quantizers = Codebooks(FiniteScalarQuantizer(LEVELS) for _ in range(config.maps))
    vqvae = vqvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prior = PixelCNN(PixelCNNConfig(config.code_shape, config.num_codes, maps=config.maps, width=64, layers=4))
    schedule, folder = FitConfig(args.steps, args.batch, args.lr), args.out / f"{name}-{args.steps}"
    began = time.monotonic()
    if name == "joint":
        fit(JointObjective(Joint(vqvae, prior), train), schedule, folder)
        vqvae.eval()
    else:
        fit(ImageObjective(vqvae, train), schedule, folder)
    seconds = time.monotonic() - began
    if name != "joint":
        fit(CodesObjective(prior, encode_images(vqvae, train.pixels), None), schedule, folder / "prior")
    codes = encode_images(vqvae.eval(), test.pixels).long()
    with torch.no_grad():
        nats = -torch.cat([prior.eval().log_prob(part) for part in codes.split(AT_ONCE)])
    bound = evaluate_bound(vqvae, test.pixels)
    learned = float(bits_per_dim(nats, config.image_size).mean())
    used = sum(len(part.unique()) for part in codes.transpose(0, 1)) / (config.maps * config.num_codes)
    return {
        "distortion": bound["distortion"],
        "uniform": bound["bits_per_dim"],
        "learned": bound["distortion"] + learned,
        "usage": used,
        "seconds": round(seconds),
    }


def measure_critic(weight: float, args: Args, train: Images, test: Images) -> Result:
    """How near reconstructions of held-out frames come to them, one by one and as a set."""
    torch.manual_seed(0)
    vqvae = ImageVQVAE(PRESETS["dmlab"]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = ImageObjective(vqvae, train)
    objective = AdversarialObjective(Adversaries(vqvae), train, weight) if weight else plain
    began = time.monotonic()
    fit(objective, FitConfig(args.frame_steps, args.batch, args.lr), args.out / f"critic-{weight}-{args.frame_steps}")
    seconds = time.monotonic() - began
    vqvae.eval()
    decoded = torch.cat([vqvae.reconstruct(part) for part in test.pixels.split(AT_ONCE)])
    drift = Drift(frame_features(test.pixels).double().numpy())
    return {
        "psnr": float(psnr(decoded, test.pixels).mean()),
        "ssim": float(ssim(decoded, test.pixels).mean()),
        "drift": drift(frame_features(decoded).double().numpy()),
        "gradient_energy": float(gradient_energy(decoded).mean() / gradient_energy(test.pixels).mean()),
        "seconds": round(seconds),
    }


def main(args: Args) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "beyond.json"
    rows: dict[str, Result] = json.loads(path.read_text()) if path.exists() else {}

    def keep(name: str, row: Result) -> None:
        rows[name] = row
        write_text(path, json.dumps(rows, indent=2) + "\n")
        print(name, row, flush=True)

    if codebooks := [name for name in args.codebooks if name not in rows]:
        train, test = load_images(args.data, "train", (32, 32)), load_images(args.data, "test", (32, 32))
        for name in codebooks:
            keep(name, measure_codebook(name, args, train, test.spread(args.test_images)))
    if critics := [weight for weight in args.critics if f"critic {weight:g}" not in rows]:
        train, test = (load_images(address, "train", (84, 84)) for address in (args.frames, args.test_frames))
        for weight in critics:
            keep(f"critic {weight:g}", measure_critic(weight, args, train, test.spread(args.test_images)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except UserError as error:
        raise SystemExit(str(error)) from error

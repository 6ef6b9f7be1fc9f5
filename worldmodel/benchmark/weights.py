"""LPIPS, FID and FVD: measures that are defined by somebody's trained weights, and cannot be had without them.

Each takes a TorchScript file that its authors publish. None is shipped, none is replaced by something else, and a
report without them says "not measured".

- LPIPS (Zhang et al., 2018): `vgg16.pt` of StyleGAN2-ADA. Called as `net(x, resize_images=False, return_lpips=True)`
  with x float [N, 3, H, W] in [0, 255]; the squared distance of two outputs is the LPIPS.
- FID (Heusel et al., 2017): `inception-2015-12-05.pt` of the same. Called as `net(x, return_features=True)` -> [N, D].
- FVD (Unterthiner et al., 2018): `i3d_torchscript.pt` of StyleGAN-V. Called as
  `net(x, rescale=True, resize=True, return_features=True)` with x float [N, 3, T, H, W] in [0, 255] -> [N, D].
"""

from pathlib import Path

import torch
from torch import Tensor

from worldmodel.benchmark.drift import Features, frechet_distance, moments
from worldmodel.errors import UserError


class Lpips:
    """The distance of pairs of frames."""

    def __init__(self, path: Path) -> None:
        self.net = _load(path)

    @torch.no_grad()
    def __call__(self, frames: Tensor, truth: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] each -> float [N]."""
        pieces = zip(frames.split(32), truth.split(32), strict=True)
        return torch.cat([(self._embed(a) - self._embed(b)).square().flatten(1).sum(1) for a, b in pieces])

    def _embed(self, frames: Tensor) -> Tensor:
        return self.net(_channels_first(frames), resize_images=False, return_lpips=True)


class Fid:
    """The features of single frames."""

    def __init__(self, path: Path) -> None:
        self.net = _load(path)

    @torch.no_grad()
    def features(self, frames: Tensor) -> Features:
        """uint8 [N, H, W, 3] -> float64 [N, D]."""
        pieces = [self.net(_channels_first(part), return_features=True) for part in frames.split(32)]
        return torch.cat(pieces).double().numpy()


class Fvd:
    """The features of whole clips."""

    def __init__(self, path: Path) -> None:
        self.net = _load(path)

    @torch.no_grad()
    def features(self, clips: Tensor) -> Features:
        """uint8 [N, T, H, W, 3], T of 10 or more -> float64 [N, D]."""
        rows = [
            self.net(clip.movedim(-1, 0)[None].float(), rescale=True, resize=True, return_features=True)
            for clip in clips
        ]
        return torch.cat(rows).double().numpy()


def feature_distance(features: Features, real: Features) -> float:
    """The Frechet distance of Gaussians with their means and covariances; nan for less than two rows."""
    if min(len(features), len(real)) < 2:
        return float("nan")
    return frechet_distance(*moments(features), *moments(real))


def _channels_first(frames: Tensor) -> Tensor:
    return frames.movedim(-1, 1).float()


def _load(path: Path) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise UserError(f"There are no weights at {path}.")
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is not a TorchScript file, or a damaged one.") from error

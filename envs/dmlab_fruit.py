"""Where the fruit is in a DeepMind Lab frame, told by its colours: it earns the reward, and models lose it first."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

HUD = 8 / 84  # the share of the frame's height, at its foot, that shows health and score


def apples(frames: Tensor) -> Tensor:
    """Pixels of apples (+1), bool [..., H, W], in frames, uint8 [..., H, W, 3]: R >= 50, R >= 3 G and R >= 3 B."""
    red, green, blue = frames.short().unbind(-1)
    return _above_hud((red >= 50) & (red >= 3 * green) & (red >= 3 * blue))


def lemons(frames: Tensor) -> Tensor:
    """Pixels of lemons (-1), bool [..., H, W]: G >= 70, G >= 0.9 R, R >= 0.75 G and G >= 2.5 B."""
    red, green, blue = frames.short().unbind(-1)
    return _above_hud((green >= 70) & (10 * green >= 9 * red) & (4 * red >= 3 * green) & (2 * green >= 5 * blue))


FRUIT: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"apples": apples, "lemons": lemons})


def _above_hud(mask: Tensor) -> Tensor:
    mask[..., round(mask.shape[-2] * (1 - HUD)) :, :] = False
    return mask

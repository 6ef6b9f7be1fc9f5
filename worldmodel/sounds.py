"""Pictures of sound, for people."""

import torch
from torch import Tensor

WINDOW, HOP = 512, 128  # samples
RANGE = 8.0  # natural logarithms of power, from the loudest down to what is drawn white: 35 decibels


def spectrogram(wave: Tensor) -> Tensor:
    """A wave, float [T], as a picture, uint8 [257, 1 + T // 128, 3]: time to the right, pitch upwards, loud is dark."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(wave.float().cpu(), WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    power = torch.log(spectrum.abs().square() + 1e-6)  # [257, frames]
    light = ((power.max() - power) / RANGE).clamp(max=1)
    return (light * 255).to(torch.uint8).flip(0)[..., None].expand(-1, -1, 3)

"""Sound for people: files to listen to, and pictures."""

import wave as riff
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from worldmodel.files import write_bytes

WINDOW, HOP = 512, 128  # samples
RANGE = 12.0  # natural logarithms of power, from the loudest down to what is drawn white: 52 decibels


def write_wav(path: Path, wave: Tensor, sample_rate: int) -> None:
    """A wave, float [T] in [-1, 1], as a file of 16 bits a sample."""
    content = BytesIO()
    with riff.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((wave.clamp(-1, 1) * 32767).round().short().cpu().numpy().astype("<i2").tobytes())
    write_bytes(path, content.getvalue())


def spectrogram(wave: Tensor) -> Tensor:
    """A wave, float [T], as a picture, uint8 [257, 1 + T // 128, 3]: time to the right, pitch upwards, loud is dark."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(wave.float().cpu(), WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    power = torch.log(spectrum.abs().square() + 1e-6)  # [257, columns]
    light = ((power.max() - power) / RANGE).clamp(max=1)
    return (light * 255).to(torch.uint8).flip(0)[..., None].expand(-1, -1, 3)

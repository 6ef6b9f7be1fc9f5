"""The log-mel spectrum of waves at 16 kHz."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEL_HOP = 160  # samples between columns: 10 ms
WINDOW = 400  # samples
HIGHEST = 8_000.0  # Hz


class LogMel(nn.Module):
    """Waves, float [B, T] -> log-mel spectra, float32 [B, bands, T / 160], of zero mean and unit variance a band.

    The normalisation, over the time of each wave, takes away the loudness and what the microphone and the voice add to
    all of it.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, bands: int = 80) -> None:
        super().__init__()
        self.bands = bands
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(bands, WINDOW // 2 + 1, HIGHEST), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        with torch.autocast(waves.device.type, enabled=False):
            around = F.pad(waves.float(), ((WINDOW - MEL_HOP) // 2,) * 2)
            spectrum = torch.stft(around, WINDOW, MEL_HOP, window=self.window, center=False, return_complex=True)
            mel = self.filters @ (spectrum.real.square() + spectrum.imag.square())  # [B, bands, T / 160]
            log = torch.log(mel + 1e-5)
            centred = log - log.mean(2, keepdim=True)
            return centred / (centred.square().mean(2, keepdim=True) + 1e-2).sqrt()


def mel_filters(bands: int, frequencies: int, highest: float) -> Tensor:
    """Triangles evenly spaced in mel, each reaching to its neighbours' tops: float [bands, frequencies].

    `frequencies` are evenly spaced from 0 to `highest` Hz.
    """
    mel = torch.linspace(0, float(2595 * torch.log10(torch.tensor(1 + highest / 700))), bands + 2)
    tops = 700 * (10 ** (mel / 2595) - 1)  # Hz
    rising = (torch.linspace(0, highest, frequencies) - tops[:-1, None]) / tops.diff()[:, None]
    return torch.minimum(rising[:-1], 1 - rising[1:]).clamp(min=0)

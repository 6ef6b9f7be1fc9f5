"""Models of speech that take no time."""

import dataclasses

import torch

from worldmodel.audio import AudioConfig
from worldmodel.audio_data import Audio
from worldmodel.audio_model import AudioModel, AudioModelConfig
from worldmodel.wavenet import WaveNetConfig

TINY = AudioConfig(
    (2, 2, 2), num_codes=8, code_dim=4, width=8, blocks=1, decoder_width=8, decoder_skip=8, decoder_layers=3, hop=4,
    speakers=2,
)  # fmt: skip
MEL = dataclasses.replace(TINY, strides=(2,), features="mel", hop=64)


def tiny_model(config: AudioConfig = TINY) -> AudioModel:
    torch.manual_seed(0)
    return AudioModel(AudioModelConfig(config, WaveNetConfig(8, width=8, skip=8, layers=2), ("ann", "bob"))).eval()


def ann() -> Audio:
    """One utterance of one speaker."""
    generator = torch.Generator().manual_seed(0)
    return Audio([torch.rand(9_000, generator=generator) - 0.5], torch.tensor([0]), ("ann",), ("a",), None, 16_000)

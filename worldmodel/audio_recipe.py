"""From recorded speech to a model of it: the VQ-VAE, then the prior over its codes."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from worldmodel.audio import PRESETS, AudioConfig, AudioVQVAE, fit_dictionary, settle
from worldmodel.audio_data import Audio
from worldmodel.audio_model import AudioModel, AudioModelConfig
from worldmodel.audio_objectives import AudioObjective, SpeechCodesObjective
from worldmodel.errors import UserError
from worldmodel.training import CHECKPOINT, FitConfig, fit
from worldmodel.wavenet import WaveNetConfig

LONGEST_CROP = 1 << 20  # samples: a minute
SOUNDS_EVERY = 5_000  # steps: to draw a second takes as long as some hundred of them


@dataclass
class AudioRecipe:
    """What is trained, and for how long."""

    preset: Literal["64x", "128x", "25hz"] = "64x"
    """Shape of the model: "64x" (250 codes of 512 a second), "128x" (125 of 512) or "25hz" (25 of 128, which come close
    to phonemes)."""
    steps: int = 20_000
    """Steps of the VQ-VAE."""
    settle_steps: int = 0
    """Steps of its decoder alone after those, for codes that come closer to phonemes: of what the encoder, which has
    learned all it will, makes before its last layer. 0 for the codes as they are."""
    batch: int = 16
    heard: int = 30_720
    """Samples of speech that the encoder hears at once."""
    spoken: int = 10_240
    """Samples of those that the decoder learns to say again."""
    lr: float = 1e-3
    """Peak learning rate of the VQ-VAE."""
    prior_steps: int = 5_000
    prior_batch: int = 16
    prior_crop: int = 40_960
    """Samples whose codes the prior learns from at once."""
    prior_lr: float = 1e-3
    """Peak learning rate of the prior."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.lr < 1 and 0 < self.prior_lr < 1):
            raise UserError("Learning rates are between 0 and 1.")
        if min(self.steps, self.batch, self.prior_steps, self.prior_batch) < 1 or not 0 <= self.seed < 2**32:
            raise UserError(f"Steps and batches are 1 or more, and the seed is from 0 to {2**32 - 1}.")
        if self.settle_steps < 0:
            raise UserError(f"--settle-steps is 0 or more, not {self.settle_steps}.")
        least = PRESETS[self.preset].stride
        if not least <= min(self.heard, self.prior_crop) <= max(self.heard, self.prior_crop) <= LONGEST_CROP:
            raise UserError(f"A crop has the {least} samples of one latent at least, and {LONGEST_CROP} at most.")
        if not 1 <= self.spoken <= self.heard:
            raise UserError(f"--spoken is 1 to --heard, {self.heard}, not {self.spoken}.")


def learn_audio(audio: Audio, recipe: AudioRecipe, folder: Path, device: str) -> AudioModel:
    """Train both parts of a model of `audio`, of which no utterance is shorter than a latent, or go on, in `folder`."""
    config = dataclasses.replace(PRESETS[recipe.preset], speakers=len(audio.speaker_names))
    torch.manual_seed(recipe.seed)
    vqvae = AudioVQVAE(config).to(device)
    speech = AudioObjective(vqvae, audio, recipe.heard, recipe.spoken, seed=recipe.seed)
    schedule = FitConfig(recipe.steps, recipe.batch, recipe.lr, recipe.seed, pictures_every=SOUNDS_EVERY)
    fit(speech, schedule, folder / "vqvae")
    if recipe.settle_steps:
        torch.manual_seed(recipe.seed)
        vqvae = settle(vqvae)
        if not (folder / "settled" / CHECKPOINT).exists():  # which has a dictionary
            fit_dictionary(vqvae, audio.waves)
        speech = AudioObjective(vqvae, audio, recipe.heard, recipe.spoken, settled=True, seed=recipe.seed)
        fit(speech, dataclasses.replace(schedule, steps=recipe.settle_steps), folder / "settled")
    torch.manual_seed(recipe.seed)
    crop = recipe.prior_crop // config.stride  # codes
    model = AudioModel(AudioModelConfig(vqvae.config, prior_config(config, crop), audio.speaker_names)).to(device)
    model.vqvae = vqvae.bfloat16().float().eval()  # as it will be saved: the prior learns the codes that it will see
    codes = SpeechCodesObjective(model.prior, model.vqvae, audio, crop, seed=recipe.seed)
    fit(codes, FitConfig(recipe.prior_steps, recipe.prior_batch, recipe.prior_lr, recipe.seed), folder / "prior")
    return model.bfloat16().float().eval()


def prior_config(config: AudioConfig, crop: int) -> WaveNetConfig:
    """The shape of the prior over a VQ-VAE's codes: two stacks that see as much of a crop, in codes, as they can."""
    layers = max(math.floor(math.log2(crop + 1)) - 1, 1)  # which see 2^(layers + 1) - 1
    return WaveNetConfig(config.num_codes, width=96, skip=192, stacks=2, layers=layers)

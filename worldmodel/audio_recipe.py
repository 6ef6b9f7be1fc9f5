"""From recorded speech to a model of it: the VQ-VAE, then the prior over its codes."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from worldmodel.audio import PRESETS, AudioConfig, AudioVQVAE, fit_codes, settle, settled_config
from worldmodel.audio_data import Audio
from worldmodel.audio_model import AudioModel, AudioModelConfig
from worldmodel.audio_objectives import AudioObjective, SpeechCodesObjective
from worldmodel.errors import UserError
from worldmodel.training import CHECKPOINT, FitConfig, check_schedules, fit
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
    """Steps of the VQ-VAE; with 0 it stays what it is at the start."""
    settle_steps: int = 0
    """25hz: after those, keep the encoder as it is but for its last layer, fit a new dictionary to what it makes and to
    cepstra, and train a new decoder for so many steps: such codes come closer to phonemes. 0 for the codes as they
    are."""
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
        if min(self.steps, self.settle_steps) < 0 or self.prior_steps < 1:
            raise UserError("Steps are 1 or more (--steps and --settle-steps 0 or more).")
        if self.settle_steps and PRESETS[self.preset].features != "mel":
            raise UserError(f"--settle-steps is of the preset 25hz, which hears spectra; {self.preset} hears the wave.")
        check_schedules((self.batch, self.prior_batch), (self.lr, self.prior_lr), self.seed)
        least = PRESETS[self.preset].stride
        if not least <= min(self.heard, self.prior_crop) <= max(self.heard, self.prior_crop) <= LONGEST_CROP:
            raise UserError(
                f"--heard and --prior-crop are {least} samples (one latent) at least, and {LONGEST_CROP} at most; "
                f"these are {self.heard} and {self.prior_crop}."
            )
        if not 1 <= self.spoken <= self.heard:
            raise UserError(f"--spoken is 1 to --heard, {self.heard}, not {self.spoken}.")


def check_trainable(audio: Audio, recipe: AudioRecipe, start: AudioModel | None = None) -> None:
    """Raise `UserError` for whatever would stop the training of a model of `audio` later on."""
    config = _vqvae_config(audio, recipe)
    audio.check_length(config.stride)
    if start is None:
        if not recipe.steps:
            raise UserError("A VQ-VAE from scratch learns nothing in 0 steps: give it some, or a model to start from.")
        return
    if start.config.speakers != audio.speaker_names:
        raise UserError("The model to start from knows other speakers than these; train without --init.")
    shapes = [config, settled_config(config)] if config.features == "mel" else [config]
    if start.config.audio not in shapes:
        raise UserError(f"The model to start from is none of the preset {recipe.preset}; train without --init.")
    if start.config != _model_config(start.config.audio, audio, recipe):
        raise UserError("The prior of the model to start from learned from crops of another length: mend --prior-crop.")
    if recipe.steps and start.config.audio != config:
        raise UserError("The model to start from has settled: its encoder learns no more, so --steps is 0.")


def learn_audio(
    audio: Audio, recipe: AudioRecipe, folder: Path, device: str, *, start: AudioModel | None = None
) -> AudioModel:
    """Train both parts of a model of `audio`, which is found trainable, or go on with them, in `folder`.

    They begin with the weights of `start`, if given; one that has settled stays so.
    """
    torch.manual_seed(recipe.seed)
    config = _vqvae_config(audio, recipe)
    vqvae = AudioVQVAE(config if start is None else start.config.audio).to(device)
    if start is not None:
        vqvae.load_state_dict(start.vqvae.state_dict())
    has_settled = vqvae.config != config
    schedule = FitConfig(recipe.steps, recipe.batch, recipe.lr, recipe.seed, pictures_every=SOUNDS_EVERY)
    if not has_settled:
        speech = AudioObjective(vqvae, audio, recipe.heard, recipe.spoken, seed=recipe.seed)
        fit(speech, schedule, folder / "vqvae")
    if recipe.settle_steps:
        torch.manual_seed(recipe.seed)
        if not has_settled:
            vqvae = settle(vqvae)
            if not (folder / "settled" / CHECKPOINT).exists():  # which has a dictionary
                fit_codes(vqvae, audio.waves, seed=recipe.seed)
        speech = AudioObjective(vqvae, audio, recipe.heard, recipe.spoken, settled=True, seed=recipe.seed)
        fit(speech, dataclasses.replace(schedule, steps=recipe.settle_steps), folder / "settled")
    torch.manual_seed(recipe.seed)
    model = AudioModel(_model_config(vqvae.config, audio, recipe)).to(device)
    if start is not None and start.config == model.config:  # or its codes were others
        model.prior.load_state_dict(start.prior.state_dict())
    model.vqvae = vqvae.bfloat16().float().eval()  # as it will be saved: the prior learns the codes that it will see
    crop = recipe.prior_crop // config.stride  # codes
    codes = SpeechCodesObjective(model.prior, model.vqvae, audio, crop, seed=recipe.seed)
    fit(codes, FitConfig(recipe.prior_steps, recipe.prior_batch, recipe.prior_lr, recipe.seed), folder / "prior")
    return model.bfloat16().float().eval()


def _vqvae_config(audio: Audio, recipe: AudioRecipe) -> AudioConfig:
    """The shape of the VQ-VAE, as long as it has not settled."""
    return dataclasses.replace(PRESETS[recipe.preset], speakers=len(audio.speaker_names))


def _model_config(config: AudioConfig, audio: Audio, recipe: AudioRecipe) -> AudioModelConfig:
    return AudioModelConfig(config, prior_config(config, recipe.prior_crop // config.stride), audio.speaker_names)


def prior_config(config: AudioConfig, crop: int) -> WaveNetConfig:
    """The shape of the prior over a VQ-VAE's codes: two stacks that see as much of a crop, in codes, as they can."""
    layers = max(math.floor(math.log2(crop + 1)) - 1, 1)  # which see 2^(layers + 1) - 1
    return WaveNetConfig(config.num_codes, width=96, skip=192, stacks=2, layers=layers)

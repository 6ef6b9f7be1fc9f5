"""What is kept of speech: a VQ-VAE and the prior over its codes (§4.3)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.audio import AudioConfig, AudioVQVAE, encode_waves
from worldmodel.audio_data import Audio
from worldmodel.errors import UserError
from worldmodel.folders import check_place, find_model, read_config, read_model, with_tuples, write_model
from worldmodel.wavenet import WaveNet, WaveNetConfig


@dataclass(frozen=True)
class AudioModelConfig:
    """All that a folder of weights needs to speak again."""

    audio: AudioConfig
    prior: WaveNetConfig
    speakers: tuple[str, ...]
    """Names of the speakers that the decoder knows apart, in the order of their numbers."""

    def __post_init__(self) -> None:
        agree = self.audio.num_codes == self.prior.classes and self.audio.speakers == len(self.speakers)
        if not agree or self.prior.local or self.prior.vector:
            raise UserError("The VQ-VAE and the prior are of different codes or speakers, or the prior asks for more.")


class AudioModel(nn.Module):
    """Codes come of speech or are drawn by the prior; the VQ-VAE speaks them in the voice that it is asked for.

    Speakers are int64 [N], numbers of names in the config; waves come back in the CPU's memory. The seed
    settles all draws; `progress` goes through the samples of the longest wave, and may show how far it is.
    """

    def __init__(self, config: AudioModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vqvae = AudioVQVAE(config.audio)
        self.prior = WaveNet(config.prior)

    @torch.no_grad()
    def sample(
        self,
        codes: int,
        speakers: Tensor,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        progress: Callable[[range], Iterable[int]] = iter,
    ) -> Tensor:
        """New speech, a wave a speaker, float32 [N, codes * stride]: `codes` codes drawn by the prior, then the wave.

        Raises `UserError` for fewer than one code or speaker, one that there is not, and for a temperature out of range
        (see `WaveNet`).
        """
        if codes < 1 or not len(speakers):
            raise UserError("New speech has one code and one speaker at least.")
        self._check_voices(speakers, len(speakers))
        stride = self.config.audio.stride
        drawn = [(row[:codes], row[codes:]) for row in self._uniforms(seed, [codes * (1 + stride)] * len(speakers))]
        new, _ = self.prior.sample(torch.stack([of_codes for of_codes, _ in drawn]), temperature=temperature)
        of_samples = [row for _, row in drawn]
        spoken = self.vqvae.decode(
            list(new), speakers.to(self.vqvae.device), of_samples, temperature=temperature, progress=progress
        )
        return torch.stack(spoken).cpu()

    @torch.no_grad()
    def convert(
        self,
        waves: Sequence[Tensor],
        speakers: Tensor,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        progress: Callable[[range], Iterable[int]] = iter,
    ) -> list[Tensor]:
        """What N waves say, float [T] each, in the voices of N speakers; by their own speakers, reconstructions.

        All are drawn side by side; but for rounding, each is what it would be alone.

        Raises `UserError` where there is no wave or one without a sample, unless there is a speaker for each, and for a
        temperature out of range (see `WaveNet`).
        """
        if not len(waves) or min(len(wave) for wave in waves) < 1:
            raise UserError("There is nothing to say again: no wave, or one that has not one sample.")
        self._check_voices(speakers, len(waves))
        codes = [own.to(self.vqvae.device) for own in encode_waves(self.vqvae, waves)]
        uniforms = self._uniforms(seed, [len(wave) for wave in waves])
        spoken = self.vqvae.decode(
            codes, speakers.to(self.vqvae.device), uniforms, temperature=temperature, progress=progress
        )
        return [wave.cpu() for wave in spoken]

    def speaker(self, name: str) -> int:
        """The number of a speaker. Raises `UserError` when the decoder knows none of this name."""
        if name not in self.config.speakers:
            raise UserError(f"There is no speaker {name}; the model knows {', '.join(self.config.speakers)}.")
        return self.config.speakers.index(name)

    def check_speakers(self, audio: Audio) -> None:
        """Raise `UserError` for utterances of other speakers than those that the decoder knows apart."""
        if audio.speaker_names != self.config.speakers:
            raise UserError(
                "The utterances are of other speakers than the model's: measure it on what it was trained for."
            )

    def _check_voices(self, speakers: Tensor, n: int) -> None:
        """Raise `UserError` unless these are numbers of `n` speakers."""
        known = len(self.config.speakers)
        sound = speakers.dtype == torch.int64 and speakers.shape == (n,)
        if not sound or not 0 <= int(speakers.min()) <= int(speakers.max()) < known:
            kind = str(speakers.dtype).removeprefix("torch.")
            raise UserError(f"Speakers are int64 [{n}], from 0 to {known - 1}, not {kind} {speakers.tolist()}.")

    def _uniforms(self, seed: int, lengths: Sequence[int]) -> list[Tensor]:
        """Numbers in [0, 1), float [n] for each length n, that depend on the seed and the place in the list alone."""
        rows = (np.random.default_rng((seed, i)).random(n, np.float32) for i, n in enumerate(lengths))
        return [torch.from_numpy(row).to(self.vqvae.device) for row in rows]

    def save_pretrained(self, folder: str | Path, *, card: str) -> None:
        """Write `config.json`, `model.safetensors` (bfloat16) and `README.md`.

        A model that is there already is replaced as a whole; raises `UserError` where something else is.
        """
        write_model(folder, "audio", self, self.config, card)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: torch.device | str = "cpu") -> Self:
        """Load a bundled model by its name, a folder by its path, or a Hub repository by its id.

        Raises `UserError` when there is no such model or device, it is not one of speech, or its files are damaged.
        """
        check_place(device)
        folder = find_model(name, "audio")
        config = read_config(folder, "audio", _parse)
        return read_model(folder, lambda: cls(config)).to(device)


def _parse(raw: dict[str, Any]) -> AudioModelConfig:
    return AudioModelConfig(
        AudioConfig(**with_tuples(raw["audio"])), WaveNetConfig(**raw["prior"]), tuple(raw["speakers"])
    )

"""What is kept of speech: a VQ-VAE and the prior over its codes (§4.3)."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.audio import AudioConfig, AudioVQVAE
from worldmodel.errors import UserError
from worldmodel.files import new_folder, read_tensors, write_tensors, write_text
from worldmodel.folders import find_model, with_tuples
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

    Speakers are int64 [N], numbers of names in the config. All draws are settled by the seed.
    """

    def __init__(self, config: AudioModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vqvae = AudioVQVAE(config.audio)
        self.prior = WaveNet(config.prior)

    @torch.no_grad()
    def sample(self, codes: int, speakers: Tensor, *, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """New speech, a wave a speaker, float32 [N, codes * stride]: `codes` codes drawn by the prior, then the wave.

        Raises `UserError` for fewer than one code, and for a temperature that is not above 0.
        """
        if codes < 1:
            raise UserError(f"There is one code at least, not {codes}.")
        generator = torch.Generator().manual_seed(seed)
        uniforms = torch.rand(len(speakers), codes, generator=generator).to(self._device)
        drawn, _ = self.prior.sample(uniforms, temperature=temperature)
        uniforms = torch.rand(len(speakers), codes * self.config.audio.stride, generator=generator).to(self._device)
        return self.vqvae.decode(drawn, speakers.to(self._device), uniforms, temperature=temperature)

    @torch.no_grad()
    def convert(
        self, waves: Sequence[Tensor], speakers: Tensor, *, seed: int = 0, temperature: float = 1.0
    ) -> list[Tensor]:
        """What N waves say, float [T] each, in the voices of N speakers; by their own speakers, reconstructions.

        All are drawn side by side; the shorter ones end in silence, which is cut off again.

        Raises `UserError` for a wave without a sample, and for a temperature that is not above 0.
        """
        lengths = [len(wave) for wave in waves]
        if min(lengths) < 1:
            raise UserError("There is nothing to say again: a wave has not one sample.")
        padded = torch.stack([F.pad(wave, (0, max(lengths) - len(wave))) for wave in waves]).to(self._device)
        uniforms = torch.rand(padded.shape, generator=torch.Generator().manual_seed(seed)).to(self._device)
        codes = self.vqvae.encode(padded)
        spoken = self.vqvae.decode(codes, speakers.to(self._device), uniforms, temperature=temperature)
        return [wave[:length] for wave, length in zip(spoken, lengths, strict=True)]

    def speaker(self, name: str) -> int:
        """The number of a speaker. Raises `UserError` when the decoder knows none of this name."""
        if name not in self.config.speakers:
            raise UserError(f"There is no speaker {name}; the model knows {', '.join(self.config.speakers)}.")
        return self.config.speakers.index(name)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def save_pretrained(self, folder: str | Path, *, card: str) -> None:
        """Write `config.json`, `model.safetensors` (bfloat16) and `README.md`, in place of what was there."""
        with new_folder(Path(folder)) as new:
            config = {"kind": "audio", **dataclasses.asdict(self.config)}
            write_text(new / "config.json", json.dumps(config, indent=2) + "\n")
            weights = {k: v.bfloat16() if v.is_floating_point() else v for k, v in self.state_dict().items()}
            write_tensors(new / "model.safetensors", weights)
            write_text(new / "README.md", card)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """Load a bundled model by its name, a folder by its path, or a Hub repository by its id.

        Raises `UserError` when there is no such model, it is not one of speech, or its files are damaged.
        """
        folder = find_model(name)
        config = _read_config(folder / "config.json")
        weights = read_tensors(folder / "model.safetensors")
        try:
            model = cls(config)
            model.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"The weights in {folder} do not fit its config.json; fetch or train it again.") from error
        return model.eval()


def _read_config(path: Path) -> AudioModelConfig:
    try:
        raw = json.loads(path.read_text())
        if raw.get("kind") == "audio":
            return AudioModelConfig(
                AudioConfig(**with_tuples(raw["audio"])),
                WaveNetConfig(**raw["prior"]),
                tuple(raw["speakers"]),
            )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        raise UserError(f"{path} is damaged or of another version ({error}); fetch or train it again.") from error
    raise UserError(f"{path.parent} is not a model of speech: it was not made by `worldmodel train-audio`.")

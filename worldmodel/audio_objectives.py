"""What the models of speech are trained for: eq. 3 on waves, then likelihood on codes."""

import math

import torch
from torch import Tensor

from worldmodel.audio import SAMPLE_RATE, AudioVQVAE
from worldmodel.audio_data import Audio
from worldmodel.crops import Crops
from worldmodel.mu_law import wave_of
from worldmodel.quantizer import perplexity
from worldmodel.sounds import spectrogram
from worldmodel.step import Batch
from worldmodel.wavenet import WaveNet


class AudioObjective:
    """The loss of a VQ-VAE on random crops of speech, of which it says a part."""

    name = "speech"
    sample_rate = SAMPLE_RATE

    def __init__(self, model: AudioVQVAE, audio: Audio, heard: int, spoken: int, *, seed: int = 0) -> None:
        """`heard`, `spoken`: in samples, the latter no more than the former."""
        self.model, self.spoken = model, spoken
        self.dataset = Crops(audio, heard, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.model(batch["classes"], batch["speakers"], self.spoken)
        bits = out.nats.mean() / (math.log(2) * self.spoken)
        codes = perplexity(out.codes, self.model.config.num_codes)
        return out.total, {"bits per sample": bits, "perplexity": codes}

    @torch.no_grad()
    def sounds(self) -> dict[str, Tensor]:
        device = next(self.model.parameters()).device
        classes, speakers = (field.to(device) for field in self.dataset.batch(0, 1).values())
        given = wave_of(classes)
        uniforms = torch.rand(given.shape, generator=torch.Generator().manual_seed(0)).to(device)
        (decoded,) = self.model.decode(list(self.model.encode(given)), speakers, list(uniforms))
        return {"given": given[0].cpu(), "reconstructed": decoded.cpu()}

    def pictures(self) -> dict[str, Tensor]:
        return {name: spectrogram(wave) for name, wave in self.sounds().items()}

    def trouble(self) -> str | None:
        if self.model.usage < 0.2:
            return f"The codebook is collapsing: {self.model.usage:.0%} of its codes are in use."
        return None


class SpeechCodesObjective:
    """-log p of a WaveNet on the codes that a finished VQ-VAE gives random crops of speech."""

    name = "prior"

    def __init__(self, model: WaveNet, vqvae: AudioVQVAE, audio: Audio, crop: int, *, seed: int = 0) -> None:
        """`crop`: in samples."""
        self.model, self.vqvae = model, vqvae
        self.dataset = Crops(audio, crop, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(batch["classes"].device.type, enabled=False):  # or some codes would be others
            codes = self.vqvae.encode(wave_of(batch["classes"]))
        nats = -self.model.log_prob(codes).mean() / codes.shape[1]
        return nats, {"bits per code": nats / math.log(2)}

    def pictures(self) -> dict[str, Tensor]:
        return {}  # codes are no pictures

    def trouble(self) -> str | None:
        return None

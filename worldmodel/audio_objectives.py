"""What the models of speech are trained for: eq. 3 on waves, then likelihood on codes."""

import math

import torch
from torch import Tensor

from worldmodel.audio import SAMPLE_RATE, AudioVQVAE, encode_waves
from worldmodel.audio_data import Audio
from worldmodel.crops import Crops
from worldmodel.mu_law import mu_law, wave_of
from worldmodel.quantizer import perplexity
from worldmodel.step import Batch
from worldmodel.wavenet import WaveNet


class AudioObjective:
    """The loss of a VQ-VAE on random crops of speech, of which it says a part; of its decoder alone once `settled`."""

    name = "speech"
    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: AudioVQVAE, audio: Audio, heard: int, spoken: int, *, settled: bool = False, seed: int = 0
    ) -> None:
        """`heard`, `spoken`: in samples, the latter no more than the former."""
        self.model, self.spoken, self.settled = model, spoken, settled
        self.dataset = Crops([mu_law(wave) for wave in audio.waves], audio.speakers, heard, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.model(batch["classes"], batch["speakers"], self.spoken, settled=self.settled)
        bits = out.nats.mean() / (math.log(2) * self.spoken)
        codes = perplexity(out.codes, self.model.config.num_codes)
        return out.total, {"bits per sample": bits, "perplexity": codes}

    @torch.no_grad()
    def sounds(self) -> dict[str, Tensor]:
        """A crop, its reconstruction, and the same in the next speaker's voice."""
        device = self.model.device
        classes, speakers = (field.to(device) for field in self.dataset.batch(0, 1).values())
        given = wave_of(classes)
        uniforms = torch.rand(given.shape, generator=torch.Generator().manual_seed(0)).to(device)
        voices = torch.cat([speakers, (speakers + 1) % self.model.config.speakers])
        reconstructed, converted = self.model.decode(list(self.model.encode(given)) * 2, voices, list(uniforms) * 2)
        return {"given": given[0].cpu(), "reconstructed": reconstructed.cpu(), "converted": converted.cpu()}

    def pictures(self) -> dict[str, Tensor]:
        return {}  # but those of the sounds

    def trouble(self) -> str | None:
        if (usage := self.model.quantizer.usage) < 0.2:
            return f"The codebook is collapsing: {usage:.0%} of its codes are in use."
        return None


class SpeechCodesObjective:
    """-log p of a WaveNet on random crops of the codes that a finished VQ-VAE gives utterances."""

    name = "prior"

    def __init__(self, model: WaveNet, vqvae: AudioVQVAE, audio: Audio, crop: int, *, seed: int = 0) -> None:
        """`crop`: in codes."""
        self.model = model
        self.dataset = Crops(encode_waves(vqvae, audio.waves), audio.speakers, crop, seed=seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        codes = batch["classes"]
        nats = -self.model.log_prob(codes).mean() / codes.shape[1]
        return nats, {"bits per code": nats / math.log(2)}

    def pictures(self) -> dict[str, Tensor]:
        return {}  # codes are no pictures

    def trouble(self) -> str | None:
        return None

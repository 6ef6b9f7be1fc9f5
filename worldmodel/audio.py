"""The VQ-VAE of speech (§4.3): a wave as a sequence of discrete codes, and back by a WaveNet that knows who speaks."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from worldmodel.blocks import ResidualBlock, conv1d
from worldmodel.errors import UserError
from worldmodel.k_means import k_means
from worldmodel.mel import log_mel
from worldmodel.mfcc import COEFFICIENTS, cepstra
from worldmodel.mu_law import CLASSES, mu_law, wave_of
from worldmodel.progress import track
from worldmodel.quantizer import VectorQuantizer
from worldmodel.wavenet import WaveNet, WaveNetConfig

SAMPLE_RATE = 16_000  # Hz
HIDDEN_AT_ONCE = 160  # samples: more than a small decoder looks back, or it would guess them
MEL_HOP, MEL_BANDS = 160, 80  # a column each 10 ms
CEPSTRA_SCALE = 0.6  # of their spread beside that of what is learned: .5 to .7 tell phonemes of training as well


@dataclass(frozen=True)
class AudioConfig:
    """The shape of a VQ-VAE of speech at 16 kHz."""

    strides: tuple[int, ...]
    """Of the encoder's convolutions, one after another."""
    num_codes: int = 512
    code_dim: int = 64
    width: int = 128
    """Channels of the encoder, and of what is made of the latents before the decoder hears them."""
    blocks: int = 2
    """Residual blocks of the encoder, and of what is made of the latents."""
    features: Literal["waveform", "mel"] = "waveform"
    """What the encoder hears: the paper's waveform, or its log-mel spectrum, 100 columns a second."""
    cepstra: int = 0
    """Of the mel spectrum, told to the encoder's last layer beside what the others make: a latent's mean of each."""
    decoder_width: int = 64
    decoder_skip: int = 128
    decoder_stacks: int = 2
    decoder_layers: int = 10
    """Of a stack (see `WaveNetConfig`)."""
    hop: int = 64
    """Samples for which the decoder is told one thing about the latents."""
    hidden: float = 0.0
    """Share of the past that the decoder is not told in training: what it would tell, the latents have to."""
    speakers: int = 1
    """How many the decoder knows apart."""

    def __post_init__(self) -> None:
        counts = self.num_codes, self.code_dim, self.width, self.blocks, self.hop, self.speakers
        if min(*counts, *self.strides, len(self.strides)) < 1 or self.features not in ("waveform", "mel"):
            raise UserError(
                "A model of speech has one code, channel, block, stride and speaker at least, and hears a waveform or "
                "its mel spectrum."
            )
        if not 0 <= self.cepstra <= (MEL_BANDS if self.features == "mel" else 0):
            raise UserError(f"Cepstra are those of {MEL_BANDS} mel bands: 0 to as many, and 0 of a waveform.")
        if not 0 <= self.hidden < 1:
            raise UserError(f"The share of the past that is hidden is from 0 to less than 1, not {self.hidden:g}.")
        if self.stride % self.hop:
            raise UserError(f"A latent of {self.stride} samples does not divide into hops of {self.hop}.")

    @property
    def stride(self) -> int:
        """Samples that a code stands for."""
        return math.prod(self.strides) * (MEL_HOP if self.features == "mel" else 1)

    @property
    def decoder(self) -> WaveNetConfig:
        return WaveNetConfig(
            CLASSES,
            self.decoder_width,
            self.decoder_skip,
            self.decoder_stacks,
            self.decoder_layers,
            local=self.width,
            hop=self.hop,
            vector=self.width,
        )


PRESETS = {
    "64x": AudioConfig((2,) * 6),  # 250 codes a second
    "128x": AudioConfig((2,) * 7),  # 125, with a prior over 320 of them
    "25hz": AudioConfig(  # 640x: a decoder that sees little of the past leaves more to the codes
        (2, 2),
        num_codes=128,
        features="mel",
        decoder_width=32,
        decoder_skip=64,
        decoder_stacks=1,
        decoder_layers=7,
        hidden=0.25,
    ),
}


@dataclass
class AudioLoss:
    """What a VQ-VAE makes of a batch of speech."""

    total: Tensor  # scalar: what is minimised
    nats: Tensor  # float [B]: -log p(x|z), a sum over the samples spoken
    codes: Tensor  # int64 [B, L]


class AudioVQVAE(nn.Module):
    """Encoder, codebook and WaveNet decoder, over waves of any length: T samples are ceil(T / stride) codes.

    Waves are float [B, T] in [-1, 1], or mu-law classes of any integer type; speakers are int64 [B], whom the decoder
    imitates: the encoder is not told. Codes are int64 [B, L].
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.quantizer = VectorQuantizer(config.num_codes, config.code_dim, ema_decay=0.99, unit_norm=True)
        self.speaker = nn.Embedding(config.speakers, config.width)  # the paper's one-hot vector, and a map of it
        self.condition = _Condition(config)
        self.decoder = WaveNet(config.decoder)

    def forward(
        self, classes: Tensor, speakers: Tensor, spoken: int | None = None, *, settled: bool = False
    ) -> AudioLoss:
        """Eq. 3 as it stands, summed over latents and samples, in nats a sample; of the decoder alone once `settled`.

        So the commitment of a latent counts once for the `stride` samples that it stands for. The decoder says a random
        stretch of `spoken` samples, at most T, of each wave, or all of it: the encoder has to hear more of an utterance
        than it pays to say again.
        """
        if settled:
            # A quarter of a crop's codes are not its utterance's, as spectra are relative to all of what is heard. (The
            # decoder spoke as well given the latter: 4.394 and 4.393 bits a sample.)
            codes = self.encode(wave_of(classes))
            vectors, loss = self.quantizer.lookup(codes), torch.zeros((), device=codes.device)
        else:
            quantized = self.quantizer(self.encoder(wave_of(classes)))
            codes, vectors, loss = quantized.codes, quantized.vectors, quantized.loss
        local, vector = self._given(vectors, speakers, classes.shape[1])
        if spoken is not None:
            classes, local = self._stretch(classes, local, spoken)
        hidden = self._hidden(classes) if self.training else None
        nats = -self.decoder.log_prob(classes.long(), local=local, vector=vector, hidden=hidden)
        total = nats.mean() / classes.shape[1] + loss / self.config.stride
        return AudioLoss(total, nats, codes)

    def nats(self, classes: Tensor, vectors: Tensor, speakers: Tensor) -> Tensor:
        """-log p(x|z), float [B], of classes [B, T] given embeddings, float [B, D, L], whatever they are."""
        local, vector = self._given(vectors, speakers, classes.shape[1])
        return -self.decoder.log_prob(classes.long(), local=local, vector=vector)

    @torch.no_grad()
    def encode(self, waves: Tensor) -> Tensor:
        """Codes, int64 [B, ceil(T / stride)], of waves, float [B, T], heard as the decoder speaks: in mu-law.

        Raises `UserError` for waves that are no floats, have not one sample, or are of other dimensions.
        """
        if not waves.is_floating_point() or waves.ndim != 2 or not waves.shape[1]:
            raise UserError(f"Waves are floats [B, T] in [-1, 1], not {waves.dtype} {list(waves.shape)}.")
        return self.quantizer.encode(self.encoder(wave_of(mu_law(waves.to(self.device)))))

    @torch.no_grad()
    def decode(
        self,
        codes: Sequence[Tensor],
        speakers: Tensor,
        uniforms: Sequence[Tensor],
        *,
        temperature: float = 1.0,
        progress: Callable[[range], Iterable[int]] = iter,
    ) -> list[Tensor]:
        """B waves, float32 [T] each, of codes, int64 [L] each, drawn side by side by uniforms, float [T] in [0, 1).

        But for rounding, a wave is what it would be alone. `progress` goes through the samples of the longest.

        Raises `UserError` unless there are as many codes, ceil(T / stride), as the uniforms ask for.
        """
        lengths = [len(row) for row in uniforms]
        for own, length in zip(codes, lengths, strict=True):
            if len(own) != -(-length // self.config.stride):
                raise UserError(f"{len(own)} codes of {self.config.stride} samples are not those of {length} samples.")
        # Each is given its own end, and no latents behind it.
        given = [
            self._given(self.quantizer.lookup(own[None]), speaker[None], length)
            for own, speaker, length in zip(codes, speakers, lengths, strict=True)
        ]
        local = pad_sequence([own[0].T for own, _ in given], batch_first=True).transpose(1, 2)  # [B, width, columns]
        vector = torch.cat([own for _, own in given])  # [B, width]
        padded = pad_sequence(list(uniforms), batch_first=True)  # [B, T of the longest]
        classes, _ = self.decoder.sample(padded, local=local, vector=vector, temperature=temperature, progress=progress)
        return [wave_of(row[:length]) for row, length in zip(classes, lengths, strict=True)]

    @property
    def device(self) -> torch.device:
        return self.speaker.weight.device

    def _stretch(self, classes: Tensor, local: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """A random stretch of each row, from the beginning of a hop on: classes [B, length], conditions likewise."""
        hop = self.config.hop
        latest = (classes.shape[1] - length) // hop
        first = torch.randint(latest + 1, (len(classes), 1), device=classes.device)
        columns = first + torch.arange(-(-length // hop), device=classes.device)  # [B, columns]
        samples = first * hop + torch.arange(length, device=classes.device)  # [B, length]
        return classes.gather(1, samples), local.gather(2, columns[:, None].expand(-1, local.shape[1], -1))

    def _hidden(self, classes: Tensor) -> Tensor:
        """Which samples the decoder is not told, bool [B, T], in stretches of `HIDDEN_AT_ONCE`."""
        batch, length = classes.shape
        drawn = torch.rand(batch, -(-length // HIDDEN_AT_ONCE), device=classes.device) < self.config.hidden
        return drawn.repeat_interleave(HIDDEN_AT_ONCE, 1)[:, :length]

    def _given(self, vectors: Tensor, speakers: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The decoder's conditions: [B, width, ceil(T / hop)] and [B, width]."""
        vector = self.speaker(speakers)
        return self.condition(vectors, vector)[:, :, : -(-length // self.config.hop)], vector


@torch.no_grad()
def encode_waves(vqvae: AudioVQVAE, waves: Sequence[Tensor]) -> list[Tensor]:
    """Codes, int64 [ceil(T / stride)] each, of waves, float [T] each, one by one: whole, as they differ in length."""
    return [vqvae.encode(wave[None])[0].cpu() for wave in waves]


def settled_config(config: AudioConfig) -> AudioConfig:
    """The shape of a model that hears spectra, once it has settled (see `settle`)."""
    return dataclasses.replace(
        config,
        code_dim=config.width + COEFFICIENTS,
        cepstra=COEFFICIENTS,
        decoder_width=64,
        decoder_skip=128,
        decoder_stacks=1,
        decoder_layers=10,  # 64 ms: some periods of the lowest voice
        hidden=0.0,
    )


@torch.no_grad()
def settle(vqvae: AudioVQVAE) -> AudioVQVAE:
    """A model that hears spectra and whose encoder is done; its codes (see `fit_codes`) and decoder are yet to come.

    The last layer served the decoder; the directions of what comes before it tell more of phonemes, and cepstra what
    the decoder did not ask for. A decoder that has no encoder to teach may look back as far as a voice asks.
    """
    model = AudioVQVAE(settled_config(vqvae.config)).to(vqvae.device)
    model.encoder.layers.load_state_dict(vqvae.encoder.layers.state_dict())
    return model


@torch.no_grad()
def fit_codes(vqvae: AudioVQVAE, waves: Sequence[Tensor], *, seed: int) -> None:
    """Fit the last layer and the dictionary of a model that has settled to what it makes of `waves`, float [T] each.

    The layer centres what the others make and scales all of it by one number, and each of the cepstra by its own. The
    dictionary, which compares directions, has the k-means centres of those.
    """
    encoder, width = vqvae.encoder, vqvae.config.width
    heard = (wave_of(mu_law(wave[None].to(vqvae.device))) for wave in track(waves, "Encoding"))
    made = torch.cat([encoder.features(wave)[0].T for wave in heard])  # [N, width + cepstra]
    spread = made.var(0, correction=0).clamp(min=1e-12)
    scale = spread.rsqrt() * CEPSTRA_SCALE / vqvae.config.cepstra**0.5
    scale[:width] = spread[:width].sum().rsqrt()
    encoder.last.weight.copy_(scale.diag()[:, :, None])
    encoder.last.get_parameter("bias").copy_(-made.mean(0) * scale)
    directions = F.normalize(encoder.last(made.T[None])[0].T, dim=1)  # [N, D]
    centres = k_means(directions, vqvae.config.num_codes, seed=seed)
    vqvae.quantizer.embedding[: len(centres)] = F.normalize(centres, dim=1).to(directions)


class _Encoder(nn.Module):
    """Strided convolutions, then residual blocks: waves, float [B, T] -> [B, D, ceil(T / stride)]."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.stride, self.cepstra = config.stride, config.cepstra
        self.mel = config.features == "mel"
        channels, layers = (MEL_BANDS if self.mel else 1), []
        for stride in config.strides:
            # Windows of two strides, which halve exactly: four samples for a stride of two (§4.3).
            pad = stride // 2, stride - stride // 2
            layers += [nn.ConstantPad1d(pad, 0), nn.Conv1d(channels, config.width, 2 * stride, stride), nn.ReLU()]
            channels = config.width
        layers += [ResidualBlock(config.width, conv1d) for _ in range(config.blocks)]
        self.layers = nn.Sequential(*layers, nn.ReLU())
        self.last = conv1d(config.width + config.cepstra, config.code_dim, 1)

    def forward(self, waves: Tensor) -> Tensor:
        return self.last(self.features(waves))

    def features(self, waves: Tensor) -> Tensor:
        """What the last layer is told: [B, width + cepstra, ceil(T / stride)]."""
        waves = F.pad(waves, (0, -waves.shape[1] % self.stride))
        heard = heard_spectra(waves) if self.mel else waves[:, None]  # [B, bands, T / 160] or [B, 1, T]
        made = self.layers(heard)
        if not self.cepstra:
            return made
        columns = cepstra(heard.transpose(1, 2), self.cepstra).transpose(1, 2)
        return torch.cat([made, F.avg_pool1d(columns, self.stride // MEL_HOP)], 1)


def heard_spectra(waves: Tensor) -> Tensor:
    """Log-mel spectra, float [B, bands, T / 160], of waves, float [B, T], of zero mean and unit variance a band.

    The normalisation, over the time of each wave, takes away the loudness and what the microphone and the voice add to
    all of it.
    """
    with torch.autocast(waves.device.type, enabled=False):
        spectra = log_mel(waves, SAMPLE_RATE, MEL_HOP, MEL_BANDS).transpose(1, 2)
        centred = spectra - spectra.mean(2, keepdim=True)
        return centred / (centred.square().mean(2, keepdim=True) + 1e-2).sqrt()


class _Condition(nn.Module):
    """What the decoder is told: embeddings, [B, D, L], seen with their neighbours and the speaker, a column a hop."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        width, columns = config.width, config.stride // config.hop
        self.first = conv1d(config.code_dim, width, 3)
        self.blocks = nn.Sequential(*(ResidualBlock(width, conv1d) for _ in range(config.blocks)), nn.ReLU())
        self.columns = nn.ConvTranspose1d(width, width, 3 * columns, columns, padding=columns)

    def forward(self, vectors: Tensor, speaker: Tensor) -> Tensor:
        """-> [B, width, L * stride / hop]; `speaker`: [B, width]."""
        return self.columns(self.blocks(self.first(vectors) + speaker[:, :, None]))

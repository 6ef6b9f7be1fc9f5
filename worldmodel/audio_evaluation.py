"""What models of speech are worth on utterances that they were not trained on."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldmodel.audio import AudioVQVAE
from worldmodel.audio_data import Audio
from worldmodel.audio_model import AudioModel
from worldmodel.errors import UserError
from worldmodel.mu_law import mu_law
from worldmodel.quantizer import perplexity
from worldmodel.wavenet import WaveNet

Result = dict[str, Any]


def evaluate_audio(model: AudioModel, test: Audio, training: Audio) -> Result:
    """What is said of a model of speech, on utterances of `test`.

    `decoder_bits`, `prior_bits` in stretches of the 40,960 samples that it is trained on, and the codes' perplexity.

    Raises `UserError` for utterances of other speakers than the model's.
    """
    if test.speaker_names != model.config.speakers:
        raise UserError("The utterances are of other speakers than the model's: measure it on what it was trained for.")
    config = model.config.audio
    codes, known = (encode_audio(model.vqvae, audio.waves) for audio in (test, training))
    return {
        "codes": config.num_codes,
        "bits_per_sample": decoder_bits(model.vqvae, test),
        "bits_per_code": prior_bits(model.prior, codes, known, 40_960 // config.stride),
        "perplexity": float(perplexity(torch.cat(codes), config.num_codes)),
    }


@torch.no_grad()
def encode_audio(vqvae: AudioVQVAE, waves: Sequence[Tensor]) -> list[Tensor]:
    """Codes, int64 [L] for each of the waves, float [T]."""
    device = next(vqvae.parameters()).device
    return [vqvae.encode(wave[None].to(device))[0].cpu() for wave in waves]


@torch.no_grad()
def decoder_bits(vqvae: AudioVQVAE, audio: Audio) -> dict[str, float]:
    """Bits a sample that the decoder needs for each utterance's speaker and one of

    - true: the utterance's own latents.
    - shuffled: those of the next utterance, again from its beginning where it is shorter.
    - none: the average of all latents, throughout.
    """
    device = next(vqvae.parameters()).device
    codes = encode_audio(vqvae, audio.waves)
    next_ones = codes[1:] + codes[:1]
    others = [other.repeat(-(-len(own) // len(other)))[: len(own)] for own, other in zip(codes, next_ones, strict=True)]
    average = vqvae.quantizer.lookup(torch.cat(codes)[None].to(device)).mean(2, keepdim=True)  # [1, D, 1]
    nats = {"true": 0.0, "shuffled": 0.0, "none": 0.0}
    for i, wave in enumerate(audio.waves):
        classes, speaker = mu_law(wave)[None].to(device), audio.speakers[i : i + 1].to(device)
        latents = {
            "true": vqvae.quantizer.lookup(codes[i][None].to(device)),
            "shuffled": vqvae.quantizer.lookup(others[i][None].to(device)),
            "none": average.expand(-1, -1, len(codes[i])),
        }
        for name, vectors in latents.items():
            nats[name] += float(vqvae.nats(classes, vectors, speaker))
    samples = sum(len(wave) for wave in audio.waves)
    return {name: total / (samples * math.log(2)) for name, total in nats.items()}


@torch.no_grad()
def prior_bits(prior: WaveNet, codes: Sequence[Tensor], training: Sequence[Tensor], most: int) -> dict[str, float]:
    """Bits a code of utterances, int64 [L] each: the prior's, by itself in stretches of at most `most` codes, and the
    unigram's, fitted on the codes of training utterances.
    """
    device, k = next(prior.parameters()).device, prior.config.classes
    stretches = [part for own in codes for part in own.split(most)]
    nats = -sum(float(prior.log_prob(part[None].to(device))) for part in stretches)
    counts = torch.bincount(torch.cat(list(training)), minlength=k).double() + 1
    everything = torch.cat(list(codes))
    unigram = -(counts / counts.sum()).log2()[everything].mean()
    return {"prior": nats / (len(everything) * math.log(2)), "unigram": float(unigram)}

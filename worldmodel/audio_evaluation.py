"""What models of speech are worth on utterances that they were not trained on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.audio import AudioVQVAE, encode_waves
from worldmodel.audio_data import Audio
from worldmodel.audio_model import AudioModel
from worldmodel.errors import UserError
from worldmodel.metrics import Result
from worldmodel.mu_law import mu_law
from worldmodel.phonemes import phonemes_of_codes
from worldmodel.quantizer import perplexity
from worldmodel.voices import VoiceClassifier, mel_cepstral_distance
from worldmodel.wavenet import WaveNet


def evaluate_audio(model: AudioModel, test: Audio, training: Audio) -> Result:
    """What is said of a model of speech, on utterances of `test`.

    `decoder_bits`, `prior_bits` in stretches of the 40,960 samples that it has learned from, unless told otherwise, and
    the codes' perplexity.

    Raises `UserError` for utterances of other speakers than the model's, and for fewer than two.
    """
    _check_held_out(model, test)
    config = model.config.audio
    codes, known = (encode_waves(model.vqvae, audio.waves) for audio in (test, training))
    return {
        "codes": config.num_codes,
        "bits_per_sample": decoder_bits(model.vqvae, test, codes),
        "bits_per_code": prior_bits(model.prior, codes, known, 40_960 // config.stride),
        "perplexity": float(perplexity(torch.cat(codes), config.num_codes)),
    }


def evaluate_spoken(model: AudioModel, test: Audio, training: Audio, *, n: int = 24, seconds: float = 3.0) -> Result:
    """What is left of speech when its codes are spoken: by its own speaker, and by another.

    Of at most `n` utterances of `test`, spread evenly, the first `seconds`, each said again in its own voice
    ("reconstructed") and in the next speaker's ("converted"); "mismatched" is the next utterance, as it was recorded.

    - mel_cepstral_distance: to the original, in decibels (see `voices`).
    - same_codes: share of codes that come back when it is encoded again.
    - same_phonemes: the same, where codes for the same phoneme count as the same.
    - speaker: share that a classifier of recorded voices gives to whom it should be: "real", the recordings
      themselves; "reconstructed"; "converted", to the new speaker; "unconverted", still to the old one; "chance".

    Raises `UserError` for utterances of other speakers than the model's, for fewer than two, and where it is not known
    what is said when.
    """
    _check_held_out(model, test)
    n = min(n, len(test))
    vqvae, rate, config = model.vqvae, test.sample_rate, model.config.audio
    names = phonemes_of_codes(vqvae, training)
    phoneme = torch.tensor([names.index(name) for name in names])  # [K]: equal where the phonemes are
    chosen = [i * len(test) // n for i in range(n)]
    waves = [test.waves[i][: round(seconds * rate)] for i in chosen]
    own = test.speakers[chosen]
    other = (own + 1) % config.speakers
    spoken = model.convert(waves * 2, torch.cat([own, other]))
    parts = {"reconstructed": spoken[:n], "converted": spoken[n:], "mismatched": waves[1:] + waves[:1]}
    classifier = VoiceClassifier(training.waves, training.speakers, rate)
    heard = {name: torch.tensor([classifier(w) for w in part]) for name, part in [("real", waves), *parts.items()]}
    result: Result = {"mel_cepstral_distance": {}, "same_codes": {}, "same_phonemes": {}}
    for name, part in parts.items():
        distances, same_codes, same_phonemes = [], [], []
        for wave, again in zip(waves, part, strict=True):
            length = min(len(wave), len(again))
            before, after = encode_waves(vqvae, [wave[:length], again[:length]])
            distances.append(mel_cepstral_distance(wave[:length], again[:length], rate))
            same_codes.append(before == after)
            same_phonemes.append(phoneme[before] == phoneme[after])
        result["mel_cepstral_distance"][name] = sum(distances) / n
        result["same_codes"][name] = float(torch.cat(same_codes).double().mean())
        result["same_phonemes"][name] = float(torch.cat(same_phonemes).double().mean())
    result["speaker"] = {
        "real": float((heard["real"] == own).double().mean()),
        "reconstructed": float((heard["reconstructed"] == own).double().mean()),
        "converted": float((heard["converted"] == other).double().mean()),
        "unconverted": float((heard["converted"] == own).double().mean()),
        "chance": 1 / config.speakers,
    }
    return result


def _check_held_out(model: AudioModel, test: Audio) -> None:
    """Raise `UserError` for utterances of other speakers than the model's, and where none has another beside it."""
    model.check_speakers(test)
    if len(test) < 2:
        raise UserError("Measuring with another utterance's latents takes two utterances at least.")


@torch.no_grad()
def decoder_bits(vqvae: AudioVQVAE, audio: Audio, codes: list[Tensor]) -> dict[str, float]:
    """Bits a sample that the decoder needs, given who speaks and latents; of the `codes` of all utterances, these are

    - true: the utterance's own.
    - shuffled: those of the next utterance, again from its beginning where it is shorter.
    - none: the average of all latents, throughout.
    """
    device = vqvae.device
    next_ones = [*codes[1:], codes[0]]
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

"""What codes of speech know of phonemes: each stands for the one that it most often coincides with (§4.3)."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodel.audio import AudioVQVAE, encode_waves
from worldmodel.audio_data import Audio
from worldmodel.errors import UserError
from worldmodel.k_means import k_means
from worldmodel.mfcc import mfcc

SILENCE = "sil"
STARTS = 5  # of k-means: where it begins moves its shares by a point

Shares = dict[str, float | None]
"""Of stretches, 0 to 1: of "all" of them, and of those of "speech", without silence; None of none at all."""

Classify = Callable[[Sequence[Tensor]], list[Tensor]]
"""Waves, float [n] each, -> classes of their stretches of `hop` samples, int64 [ceil(n / hop)] each."""


def evaluate_phonemes(vqvae: AudioVQVAE, training: Audio, held_out: dict[str, Audio]) -> dict[str, dict[str, Shares]]:
    """How often the phoneme in the middle of a code's stretch is told from the code alone, by split of `held_out`.

    Told by its code ("codes"), by the nearest of as many k-means centres of MFCCs ("mfcc_k_means", a mean over `STARTS`
    fits), or the same for all ("most_frequent"): the phoneme that most often coincides with it in `training`; for the
    share of speech, silence is left out there too. What never occurs in `training` tells nothing.

    Raises `UserError` where it is not known what is said when.
    """
    hop, k = vqvae.config.stride, vqvae.config.num_codes
    names = phoneme_names(training, *held_out.values())
    ways: dict[str, list[Classify]] = {
        "codes": [lambda waves: encode_waves(vqvae, waves)],
        "mfcc_k_means": [mfcc_k_means(training, k, hop, seed=seed) for seed in range(STARTS)],
        "most_frequent": [lambda waves: [torch.zeros(-(-len(wave) // hop), dtype=torch.int64) for wave in waves]],
    }
    parts = {"training": training, **held_out}
    said = {part: phonemes_said(audio, hop, names) for part, audio in parts.items()}
    kinds = {"all": -1, "speech": names.index(SILENCE) if SILENCE in names else -1}  # and which phoneme is left out
    result: dict[str, dict[str, Shares]] = {}
    for way, fits in ways.items():
        found = [{part: torch.cat(classify(audio.waves)) for part, audio in parts.items()} for classify in fits]
        result[way] = {split: {} for split in held_out}
        for split, (kind, without) in itertools.product(held_out, kinds.items()):
            fitted, tested = said["training"] != without, said[split] != without
            shares = []
            for classes in found:
                best = most_frequent_phonemes(classes["training"][fitted], said["training"][fitted], k, len(names))
                shares.append(float((best[classes[split][tested]] == said[split][tested]).double().mean()))
            result[way][split][kind] = sum(shares) / len(shares) if tested.any() else None
    return result


def phoneme_names(*parts: Audio) -> tuple[str, ...]:
    """All phonemes in their order. Raises `UserError` where it is not known what is said when."""
    if any(audio.phones is None for audio in parts):
        raise UserError("It is not known what is said when: phonemes take recordings with a manifest.json.")
    return tuple(sorted({name for audio in parts for phones in audio.phones or () for _, _, name in phones}))


def phonemes_said(audio: Audio, hop: int, names: tuple[str, ...]) -> Tensor:
    """What is said in the middle of each stretch of `hop` samples: indices into `names`, int64 [N], of all waves."""
    said = []
    for wave, phones in zip(audio.waves, audio.phones or (), strict=True):
        middles = np.minimum(np.arange(0, len(wave), hop) + hop // 2, len(wave) - 1)
        at = np.searchsorted([end for _, end, _ in phones], middles, side="right")
        said += [names.index(phones[i][2]) for i in at]
    return torch.tensor(said)


def phonemes_of_codes(vqvae: AudioVQVAE, training: Audio) -> list[str | None]:
    """The phoneme that each code stands for, K of them; None for one that never occurs in `training`."""
    names, codes = phoneme_names(training), torch.cat(encode_waves(vqvae, training.waves))
    said = phonemes_said(training, vqvae.config.stride, names)
    most = most_frequent_phonemes(codes, said, vqvae.config.num_codes, len(names))
    return [None if i < 0 else names[i] for i in most.tolist()]


def most_frequent_phonemes(classes: Tensor, said: Tensor, num_classes: int, num_phonemes: int) -> Tensor:
    """The phoneme, int64 [num_classes], that most often coincides with each class, of int64 [N] both; -1 with none."""
    together = torch.bincount(classes * num_phonemes + said, minlength=num_classes * num_phonemes)
    most, phoneme = together.view(num_classes, num_phonemes).max(1)
    return phoneme.where(most > 0, -1)


def mfcc_k_means(training: Audio, k: int, hop: int, *, seed: int = 0) -> Classify:
    """The nearest of `k` centres of MFCCs, which are fitted on all of `training`; of fewer, if it has no more to tell.

    A stretch has the mean of its spectra, one about each 10 ms: like the codes, k-means hears all of it. Over an
    utterance each coefficient has zero mean and unit variance, which takes away much of the voice and the microphone.
    """
    most = max(hop * 100 // training.sample_rate, 1)
    spectra = next(n for n in range(most, 0, -1) if hop % n == 0)  # of a stretch

    def features(wave: Tensor) -> Tensor:
        cepstra = mfcc(wave, training.sample_rate, hop // spectra)
        means = torch.stack([part.mean(0) for part in cepstra.split(spectra)])  # [ceil(n / hop), 13]
        centred = means - means.mean(0)
        return (centred / (centred.square().mean(0) + 1e-2).sqrt()).double()

    centres = k_means(torch.cat([features(wave) for wave in training.waves]), k, seed=seed)
    return lambda waves: [torch.cdist(features(wave), centres).argmin(1) for wave in waves]

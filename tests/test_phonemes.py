"""What codes know of phonemes, where it is known what they can know."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel.audio import AudioConfig, AudioVQVAE
from worldmodel.audio_data import Audio
from worldmodel.errors import UserError
from worldmodel.k_means import k_means
from worldmodel.mel import log_mel
from worldmodel.mfcc import mfcc
from worldmodel.phonemes import evaluate_phonemes, mfcc_k_means, most_frequent_phonemes, phonemes_said

HOP = 640
PITCH = {"sil": 0.0, "a": 500.0, "i": 2_500.0, "s": 6_000.0}  # Hz


def speech(seed: int, utterances: int = 6) -> Audio:
    """Utterances of phonemes that are tones and noises, each of some hundred samples that no hop divides."""
    rng = np.random.default_rng(seed)
    waves, phones = [], []
    for _ in range(utterances):
        parts, times, end = [], [], 0
        for name in rng.choice(list(PITCH), 12):
            length = int(rng.integers(2_000, 4_000))
            tone = np.sin(2 * math.pi * PITCH[name] / 16_000 * np.arange(length)) * (name != "sil")
            parts.append(0.3 * tone + rng.normal(0, 1e-3, length))
            times.append((end, end + length, str(name)))
            end += length
        waves.append(torch.from_numpy(np.concatenate(parts)).float())
        phones.append(times)
    names = tuple(str(i) for i in range(utterances))
    return Audio(waves, torch.zeros(utterances, dtype=torch.int64), ("ann",), names, phones, 16_000)


def test_the_phoneme_of_a_stretch_is_that_of_its_middle() -> None:
    phones = [(0, 15, "a"), (15, 16, "sil"), (16, 33, "i")]
    audio = Audio([torch.zeros(33)], torch.tensor([0]), ("ann",), ("x",), [phones], 16_000)
    assert phonemes_said(audio, 10, ("a", "i", "sil")).tolist() == [0, 2, 1, 1]  # of samples 5, 15, 25 and the last


def test_a_class_stands_for_what_it_most_often_coincides_with() -> None:
    classes, said = torch.tensor([0, 0, 0, 2, 2, 2]), torch.tensor([1, 1, 0, 2, 0, 2])
    assert most_frequent_phonemes(classes, said, 3, 3).tolist() == [1, -1, 2]  # class 1 with none


def test_k_means_of_cepstra_tell_tones_apart_and_the_share_without_silence_leaves_it_out() -> None:
    model = AudioVQVAE(AudioConfig((2, 2), num_codes=8, features="mel", decoder_layers=2, decoder_stacks=1)).eval()
    training, test = speech(0), speech(1)
    result = evaluate_phonemes(model, training, {"test": test})
    assert result["mfcc_k_means"]["test"]["all"] > 0.85  # what is missed are stretches across two phonemes
    said = phonemes_said(test, HOP, tuple(sorted(PITCH)))
    known = phonemes_said(training, HOP, tuple(sorted(PITCH)))
    for kind, left_out in (("all", -1), ("speech", sorted(PITCH).index("sil"))):
        most = known[known != left_out].bincount().argmax()
        expected = (said[said != left_out] == most).double().mean()
        assert result["most_frequent"]["test"][kind] == pytest.approx(float(expected))


def test_centres_are_means_of_what_is_nearest_and_no_more_than_can_be_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(20, 5, generator=generator) * 10
    vectors = middles.repeat_interleave(30, 0) + 0.1 * torch.randn(600, 5, generator=generator)
    centres = k_means(vectors, 20, seed=0)
    nearest = torch.cdist(vectors.double(), centres).argmin(1)
    assert torch.equal(nearest.view(20, 30), nearest[::30, None].expand(-1, 30))  # each cluster is found
    for i, centre in enumerate(centres):
        torch.testing.assert_close(vectors[nearest == i].double().mean(0), centre)
    assert torch.equal(k_means(vectors, 20, seed=0), centres)
    assert len(k_means(torch.tensor([[0.0], [1.0], [0.0]]), 5, seed=0)) == 2


def test_centres_do_not_hear_how_loud_an_utterance_is() -> None:
    classify = mfcc_k_means(speech(0), 8, HOP)
    wave = speech(2, 1).waves[0]
    loud, quiet = classify([wave, wave * 0.5])
    assert (loud == quiet).double().mean() > 0.9


def test_what_is_all_silence_has_no_share_of_speech_and_few_sounds_have_few_centres() -> None:
    model = AudioVQVAE(AudioConfig((2, 2), num_codes=8, features="mel", decoder_layers=2)).eval()
    silent = Audio([torch.zeros(1_280)], torch.tensor([0]), ("ann",), ("x",), [[(0, 1_280, "sil")]], 16_000)
    for shares in evaluate_phonemes(model, silent, {"test": silent}).values():
        assert shares == {"test": {"all": 1.0, "speech": None}}


def test_without_phoneme_times_there_is_nothing_to_tell() -> None:
    model = AudioVQVAE(AudioConfig((2, 2), features="mel", decoder_layers=2)).eval()
    silent = Audio([torch.zeros(900)], torch.tensor([0]), ("ann",), ("x",), None, 16_000)
    with pytest.raises(UserError, match=r"manifest\.json"):
        evaluate_phonemes(model, silent, {"test": silent})


@pytest.mark.parametrize("length", [1, 79, 80, 81, 1_000])
def test_spectra_are_one_a_hop_and_cepstra_are_their_cosine_transform(length: int) -> None:
    wave = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, length))
    spectra, cepstra = log_mel(wave, 16_000, 80, 40), mfcc(wave, 16_000, 80, coefficients=40)
    assert spectra.shape == (-(-length // 80), 40)
    band = np.arange(40) + 0.5
    again: Tensor = cepstra[:, :1] + 2 * sum(
        cepstra[:, k : k + 1] * torch.from_numpy(np.cos(math.pi / 40 * band * k)) for k in range(1, 40)
    )
    torch.testing.assert_close(again, spectra, atol=1e-3, rtol=1e-4)


def test_a_tone_is_loudest_in_the_band_around_it() -> None:
    wave = torch.sin(2 * math.pi * 1_000 / 16_000 * torch.arange(16_000)) * 0.5
    top = 2595 * math.log10(1 + 8_000 / 700)
    band = round(2595 * math.log10(1 + 1_000 / 700) / top * 41) - 1
    assert set(log_mel(wave, 16_000, 160, 40)[5:-5].argmax(1).tolist()) <= {band, band + 1, band - 1}

"""Who speaks, and how far one recording is from another."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.voices import VoiceClassifier, mel_cepstral_distance


def voice(speaker: int, seed: int, seconds: float = 4.0) -> Tensor:
    """Noise through a resonance of the speaker's own."""
    noise = np.random.default_rng((speaker, seed)).normal(0, 0.1, round(16_000 * seconds))
    spectrum = np.fft.rfft(noise)
    frequency = np.fft.rfftfreq(len(noise), 1 / 16_000)
    spectrum *= 0.05 + 1 / (1 + ((frequency - 800 - 500 * speaker) / 300) ** 2)
    return torch.from_numpy(np.fft.irfft(spectrum, len(noise))).float()


def test_new_recordings_of_known_voices_are_given_to_them() -> None:
    speakers = torch.arange(4).repeat(3)
    classifier = VoiceClassifier([voice(int(s), i) for i, s in enumerate(speakers)], speakers, 16_000)
    assert [classifier(voice(s, 100 + s)) for s in range(4)] == [0, 1, 2, 3]
    assert [classifier(voice(s, 200 + s, 0.5) * 0.3) for s in range(4)] == [0, 1, 2, 3]  # shorter, and not as loud


def test_the_distance_is_the_deviation_of_the_smoothed_log_spectra_in_decibels() -> None:
    """Noise of which a cosine of the mel bands is amplified by up to 6 dB, and a cosine's deviation is 1/sqrt(2)."""
    wave = voice(0, 0)
    top, periods, gain = 2595 * math.log10(1 + 8_000 / 700), 2, 6.0
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(len(wave), 1 / 16_000) / 700) / top
    spectrum = np.fft.rfft(wave.numpy()) * 10 ** (gain * np.cos(2 * math.pi * periods * mel) / 20)
    other = torch.from_numpy(np.fft.irfft(spectrum, len(wave))).float()
    assert mel_cepstral_distance(wave, other, 16_000) == pytest.approx(gain / math.sqrt(2), rel=0.15)


@given(st.integers(0, 10**6), st.floats(0.3, 1.0))
def test_loudness_is_no_distance_and_noise_is(seed: int, gain: float) -> None:
    wave = voice(1, seed, 0.2)
    assert mel_cepstral_distance(wave, wave, 16_000) == 0
    assert mel_cepstral_distance(wave, wave * gain, 16_000) < 0.5
    assert mel_cepstral_distance(wave, voice(3, seed, 0.2), 16_000) > 3

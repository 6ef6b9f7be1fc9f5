"""Who speaks, and how far one recording is from another."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.audio import AudioConfig, encode_waves
from worldmodel.audio_data import Audio
from worldmodel.audio_evaluation import evaluate_audio, evaluate_spoken
from worldmodel.audio_model import AudioModel, AudioModelConfig
from worldmodel.errors import UserError
from worldmodel.phonemes import phonemes_of_codes
from worldmodel.voices import VoiceClassifier, mel_cepstral_distance
from worldmodel.wavenet import WaveNetConfig


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


def test_converted_speech_is_heard_as_the_new_speakers_and_reconstructed_speech_as_the_old_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speakers = torch.arange(3).repeat(3)
    waves = [voice(int(s), i, 2.0) for i, s in enumerate(speakers)]
    phones = [[(0, 16_000, "a"), (16_000, 32_000, "s")] for _ in waves]
    audio = Audio(waves, speakers, ("ann", "bob", "cy"), tuple("abcdefghi"), phones, 16_000)
    config = AudioConfig((2, 2), num_codes=8, features="mel", decoder_layers=2, decoder_stacks=1, speakers=3)
    model = AudioModel(AudioModelConfig(config, WaveNetConfig(8, width=8, skip=8, layers=2), audio.speaker_names))

    def speak(given: list[Tensor], whose: Tensor) -> list[Tensor]:
        pairs = enumerate(zip(given, whose, strict=True))
        return [voice(int(s), 100 + i, len(wave) / 16_000) for i, (wave, s) in pairs]

    monkeypatch.setattr(model, "convert", speak)
    said = evaluate_spoken(model.eval(), audio, audio, n=9, seconds=2.0)
    assert said["speaker"] == {"real": 1, "reconstructed": 1, "converted": 1, "unconverted": 0, "chance": 1 / 3}
    assert said["mel_cepstral_distance"]["reconstructed"] < said["mel_cepstral_distance"]["converted"]
    monkeypatch.setattr(model, "convert", lambda given, whose: speak(given, torch.cat([speakers, speakers])))
    said = evaluate_spoken(model, audio, audio, n=9, seconds=2.0)
    assert (said["speaker"]["converted"], said["speaker"]["unconverted"]) == (0, 1)
    # Those who say the very same, and those who say what another said.
    monkeypatch.setattr(model, "convert", lambda given, whose: [*given[:9], *given[1:9], given[0]])
    said = evaluate_spoken(model, audio, audio, n=9, seconds=2.0)
    codes = encode_waves(model.vqvae, waves)
    same = torch.cat([one == other for one, other in zip(codes, codes[1:] + codes[:1], strict=True)])
    names = phonemes_of_codes(model.vqvae, audio)
    alike = torch.tensor([[one == other for one in names] for other in names])  # [K, K]
    one, other = torch.cat(codes), torch.cat(codes[1:] + codes[:1])
    assert said["same_codes"]["reconstructed"] == said["same_phonemes"]["reconstructed"] == 1
    for part in ("converted", "mismatched"):
        assert said["same_codes"][part] == pytest.approx(float(same.double().mean()))
        assert said["same_phonemes"][part] == pytest.approx(float(alike[one, other].double().mean()))
    assert 0 < said["same_codes"]["mismatched"] < 1
    with pytest.raises(UserError, match="of other speakers than the model's"):
        evaluate_spoken(model, dataclasses.replace(audio, speaker_names=("ann", "bob", "eve")), audio)
    alone = dataclasses.replace(audio, waves=audio.waves[:1], speakers=audio.speakers[:1], names=audio.names[:1])
    for evaluate in (evaluate_spoken, evaluate_audio):
        with pytest.raises(UserError, match="two utterances at least"):
            evaluate(model, alone, audio)


def test_directions_in_which_no_voice_varies_tell_voices_apart() -> None:
    """Loud formants wander; a faint one, high up, does not: discriminant analysis weighs it by how little it varies."""

    def speak(speaker: int, seed: int) -> Tensor:
        rng = np.random.default_rng((speaker, seed))
        spectrum = np.fft.rfft(rng.normal(0, 0.1, 48_000))
        frequency = np.fft.rfftfreq(48_000, 1 / 16_000)
        wandering = np.exp(rng.normal(0, 2) * np.cos(frequency / 8_000 * np.pi * 3))
        own = np.exp((0.4 if speaker else -0.4) * np.cos(frequency / 8_000 * np.pi * 14))
        return torch.from_numpy(np.fft.irfft(spectrum * wandering * own, 48_000)).float() * 0.1

    speakers = torch.arange(2).repeat(20)
    classifier = VoiceClassifier([speak(int(s), i) for i, s in enumerate(speakers)], speakers, 16_000)
    heard = [classifier(speak(s, 100 + i)) == s for s in range(2) for i in range(20)]
    assert sum(heard) >= 38


@given(st.integers(0, 10**6), st.floats(0.3, 1.0))
def test_loudness_is_no_distance_and_noise_is(seed: int, gain: float) -> None:
    wave = voice(1, seed, 0.2)
    assert mel_cepstral_distance(wave, wave, 16_000) == 0
    assert mel_cepstral_distance(wave, wave * gain, 16_000) < 0.5
    assert mel_cepstral_distance(wave, voice(3, seed, 0.2), 16_000) > 3

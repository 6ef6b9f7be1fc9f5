"""Speech that settles: what its codes are then, and that the decoder alone goes on."""

import dataclasses
import math
from pathlib import Path

import pytest
import scipy.fft
import torch
import torch.nn.functional as F

from tests.tiny_speech import MEL, ann, tiny_model
from worldmodel import audio_recipe
from worldmodel.audio import (
    PRESETS,
    AudioVQVAE,
    fit_codes,
    heard_spectra,
    settle,
    settled_config,
)
from worldmodel.audio_model import AudioModel
from worldmodel.audio_objectives import AudioObjective
from worldmodel.audio_recipe import AudioRecipe, learn_audio
from worldmodel.mu_law import mu_law, wave_of


def test_cepstra_are_the_cosine_transform_of_the_spectra_that_are_heard() -> None:
    torch.manual_seed(0)
    encoder = AudioVQVAE(settled_config(MEL)).encoder
    wave = torch.rand(1, 3_200) * 0.4 - 0.2
    heard = heard_spectra(wave)[0].double().numpy()  # [bands, T / 160]
    cosines = scipy.fft.dct(heard, axis=0)[:13] / (2 * len(heard))
    expected = torch.from_numpy(cosines).unflatten(1, (-1, 2)).mean(2)  # a latent of two columns
    torch.testing.assert_close(encoder.features(wave)[0, MEL.width :].double(), expected, rtol=0, atol=1e-5)


def test_settled_codes_are_directions_of_what_is_told_to_the_last_layer() -> None:
    model = tiny_model(MEL).vqvae
    waves = [torch.rand(n) * 0.4 - 0.2 for n in (9_000, 3_200)]
    settled = settle(model).eval()
    fit_codes(settled, waves, seed=0)
    heard = [wave_of(mu_law(wave[None])) for wave in waves]
    made = torch.cat([model.encoder.features(wave)[0].T for wave in heard])  # [N, width]: no cepstra yet
    told = torch.cat([settled.encoder.features(wave)[0].T for wave in heard])[:, MEL.width :]
    scaled = (made - made.mean(0)) / made.var(0, correction=0).sum().sqrt()
    # Each of the cepstra has the same share of .6 squared of what all of the others vary by.
    told = told - told.mean(0)
    shares = told / told.square().mean(0).sqrt() * math.sqrt(0.36 / 13)
    directions = F.normalize(torch.cat([scaled, shares], 1), dim=1)  # [N, D]
    codes = torch.cat([settled.encode(wave[None])[0] for wave in waves])
    embeddings = settled.quantizer.embedding
    assert torch.equal((directions @ embeddings.T).argmax(1), codes)
    assert len(codes.unique()) == MEL.num_codes
    for code, embedding in enumerate(embeddings):  # the mean of what it stands for
        torch.testing.assert_close(F.normalize(directions[codes == code].mean(0), dim=0), embedding, rtol=0, atol=0.1)


def test_a_dictionary_of_few_sounds_is_fitted_to_those() -> None:
    settled = settle(tiny_model(MEL).vqvae).eval()
    fit_codes(settled, [torch.zeros(3_200)], seed=0)
    assert settled.encode(torch.zeros(1, 3_200)).shape == (1, 10)
    assert all(value.isfinite().all() for value in settled.state_dict().values())


def test_once_it_has_settled_only_the_decoder_learns() -> None:
    model = tiny_model().vqvae
    objective = AudioObjective(model.train(), ann(), 640, 320, settled=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, _ = objective.loss(objective.dataset.batch(0, 2))
    loss.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for part in (model.condition, model.decoder) for p in part.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_settled_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    audio = ann()
    recipe = AudioRecipe(preset="25hz", steps=1, settle_steps=1, batch=1, heard=1_280, spoken=640, prior_steps=1)
    model = learn_audio(audio, recipe, tmp_path, "cpu")
    assert model.config.audio == settled_config(dataclasses.replace(PRESETS["25hz"], speakers=1))
    model.save_pretrained(tmp_path / "model", card="")
    again = AudioModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.vqvae.encode(audio.waves[0][None]), model.vqvae.encode(audio.waves[0][None]))


def test_a_settled_training_that_goes_on_keeps_its_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = AudioRecipe(preset="25hz", steps=1, settle_steps=1, batch=1, heard=1_280, spoken=640, prior_steps=1)
    before = learn_audio(ann(), recipe, tmp_path, "cpu").vqvae.state_dict()
    monkeypatch.setattr(audio_recipe, "fit_codes", None)
    after = learn_audio(ann(), recipe, tmp_path, "cpu").vqvae.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())

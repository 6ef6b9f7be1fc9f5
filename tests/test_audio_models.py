"""The VQ-VAE of speech: any length in and out, what it minimises, and how it is kept."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny_speech import MEL, TINY, tiny_model
from worldmodel.audio import (
    PRESETS,
    AudioConfig,
    AudioVQVAE,
    encode_waves,
)
from worldmodel.audio_data import Audio
from worldmodel.audio_evaluation import decoder_bits, prior_bits
from worldmodel.audio_model import AudioModel
from worldmodel.audio_objectives import SpeechCodesObjective
from worldmodel.audio_recipe import prior_config
from worldmodel.errors import UserError
from worldmodel.mel import mel_filters
from worldmodel.mu_law import mu_law, wave_of
from worldmodel.sounds import spectrogram
from worldmodel.wavenet import WaveNet, WaveNetConfig


@pytest.mark.parametrize("config", [TINY, MEL])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 319, 321])
def test_any_length_in_gives_the_same_length_out(config: AudioConfig, length: int) -> None:
    model = AudioVQVAE(config).eval()
    waves, speakers = torch.rand(2, length) * 2 - 1, torch.tensor([0, 1])
    codes = model.encode(waves)
    assert codes.shape == (2, math.ceil(length / config.stride))
    spoken = torch.stack(model.decode(codes, speakers, torch.rand(2, length)))
    assert spoken.shape == waves.shape
    assert spoken.abs().max() <= 1
    loss = model(mu_law(waves), speakers)
    assert loss.codes.shape == codes.shape
    assert loss.total.isfinite()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_papers_shapes(name: str) -> None:
    stride, codes = {"64x": (64, 512), "128x": (128, 512), "25hz": (640, 128)}[name]
    config = PRESETS[name]
    assert (config.stride, config.num_codes) == (stride, codes)
    assert AudioVQVAE(config).encode(torch.zeros(1, 40_960)).shape == (1, 40_960 // stride)


def test_the_loss_is_equation_3_in_nats_a_sample() -> None:
    torch.manual_seed(0)
    model = AudioVQVAE(TINY).eval()
    classes, speakers = torch.randint(256, (3, 20)), torch.tensor([0, 1, 1])
    out = model(classes, speakers)
    z = model.encoder(wave_of(classes))  # [B, D, L]
    z = z / z.norm(dim=1, keepdim=True)
    commitment = (z - model.quantizer.lookup(model.encode(wave_of(classes)))).square().sum() * 0.25
    latents = 3 * 3  # of 8 samples, the last of them incomplete
    expected = out.nats.sum() / (3 * 20) + commitment / (latents * 8)
    assert out.total.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("spoken", [1, 5, 8, 13])
def test_what_is_spoken_is_a_stretch_of_what_is_heard(spoken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its own latents beside it, and a loss per sample; each place at a hop is as likely as any other."""
    torch.manual_seed(0)
    model = AudioVQVAE(TINY).eval()
    hop = TINY.hop
    classes = torch.arange(29)[None].repeat(64, 1)  # each sample tells its place
    speakers = torch.zeros(64, dtype=torch.long)
    given = {}

    def watched(samples: Tensor, **conditions: Tensor) -> Tensor:
        given.update(samples=samples, local=conditions["local"])
        return torch.full((len(samples),), -3.0)

    monkeypatch.setattr(model.decoder, "log_prob", watched)
    whole = model(classes, speakers)
    everything = given["local"][0]  # [width, columns]
    part = model(classes, speakers, spoken)
    assert torch.equal(part.codes, whole.codes)
    assert (part.total - whole.total).item() == pytest.approx(3 / spoken - 3 / 29, rel=1e-4)
    starts = set()
    for row, local in zip(given["samples"], given["local"], strict=True):
        start = int(row[0])
        assert start % hop == 0
        assert row.tolist() == list(range(start, start + spoken))
        torch.testing.assert_close(local, everything[:, start // hop :][:, : -(-spoken // hop)])
        starts.add(start)
    assert starts == set(range(0, 29 - spoken + 1, hop))


def test_in_training_stretches_of_the_past_are_hidden_and_the_loss_is_that_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = AudioVQVAE(dataclasses.replace(TINY, hidden=0.25))
    masks = []
    log_prob = model.decoder.log_prob

    def watched(samples: Tensor, **given: Tensor) -> Tensor:
        masks.append(given["hidden"])
        return log_prob(samples, **given)

    monkeypatch.setattr(model.decoder, "log_prob", watched)
    classes, speakers = torch.randint(256, (2, 64_100)), torch.tensor([0, 1])
    model(classes, speakers)
    model.eval()(classes, speakers)
    hidden, nothing = masks
    assert nothing is None
    assert hidden.shape == classes.shape
    assert 0.15 < hidden.double().mean() < 0.35
    assert (hidden[:, :64_000].unflatten(1, (-1, 160)).sum(2) % 160 == 0).all()
    with pytest.raises(UserError, match="hidden is from 0 to less than 1"):
        dataclasses.replace(TINY, hidden=1.0)


def test_the_encoder_learns_from_the_decoder() -> None:
    model = AudioVQVAE(TINY)
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model(torch.randint(256, (2, 40)), torch.tensor([0, 1])).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in model.named_parameters() if p.requires_grad)
    first = next(p for n, p in model.encoder.named_parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_latents_matter_where_the_past_does_not_tell() -> None:
    """Stretches of noise, each loud or quiet: what comes is told by the latents before it is heard."""
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, decoder_layers=1, decoder_stacks=1, hop=8)
    model = AudioVQVAE(config)
    loud = torch.randint(2, (8, 40, 1))
    waves = ((torch.rand(8, 40, 8) * 2 - 1) * (0.01 + 0.9 * loud)).flatten(1)
    classes, speakers = mu_law(waves), torch.zeros(8, dtype=torch.int64)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        loss = model(classes, speakers)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    audio = Audio(list(waves), speakers, ("ann",), tuple("abcdefgh"), None, 16_000)
    bits = decoder_bits(model.eval(), audio, encode_waves(model, audio.waves))
    assert bits["true"] < bits["none"] - 0.05
    assert bits["true"] < bits["shuffled"] - 0.1


def test_mel_filters_cover_what_is_heard_evenly() -> None:
    filters = mel_filters(40, 201, 8_000)
    assert filters.shape == (40, 201)
    assert filters.min() >= 0
    inner = filters[:, 5:190].sum(0)
    assert inner.min() > 0.4
    assert inner.max() < 1.01
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all()


def test_a_mel_encoder_does_not_hear_how_loud_a_wave_is() -> None:
    torch.manual_seed(0)
    encoder = AudioVQVAE(MEL).encoder
    wave = torch.randn(1, 3_200) * 0.1
    assert torch.allclose(encoder(wave), encoder(wave * 3), atol=2e-2)
    assert encoder(torch.zeros(1, 3_200)).isfinite().all()


def test_what_is_said_keeps_its_length_and_is_settled_by_the_seed() -> None:
    model = tiny_model()
    waves, speakers = [torch.rand(50) - 0.5, torch.rand(33) - 0.5], torch.tensor([1, 0])
    spoken = model.convert(waves, speakers, seed=3)
    assert [len(wave) for wave in spoken] == [50, 33]
    assert all(torch.equal(a, b) for a, b in zip(spoken, model.convert(waves, speakers, seed=3), strict=True))
    assert not torch.equal(spoken[0], model.convert(waves, speakers, seed=4)[0])
    assert model.sample(5, speakers, seed=1).shape == (2, 40)
    # No row of one seed is drawn as any of another: a neighbour's draws would tell nothing new.
    rows = [*model.sample(5, speakers[[0, 0]], seed=0), *model.sample(5, speakers[[0, 0]], seed=1)]
    assert len({str(row.tolist()) for row in rows}) == 4
    with pytest.raises(UserError, match="one code and one speaker at least"):
        model.sample(0, speakers)
    with pytest.raises(UserError, match="not one sample"):
        model.convert([torch.zeros(0)], torch.tensor([0]))
    with pytest.raises(UserError, match=r"not torch.float32 \[1, 0\]"):
        model.vqvae.encode(torch.zeros(1, 0))
    with pytest.raises(UserError, match="no wave"):
        model.convert([], torch.tensor([], dtype=torch.int64))
    with pytest.raises(UserError, match="no speaker eve; the model knows ann, bob"):
        model.speaker("eve")


@pytest.mark.parametrize("config", [TINY, MEL])
def test_codes_are_the_same_in_training_and_in_use(config: AudioConfig) -> None:
    model = tiny_model(config).vqvae
    waves, speakers = torch.rand(2, 3_200) * 0.2 - 0.1, torch.tensor([0, 1])
    assert torch.equal(model.encode(waves), model(mu_law(waves), speakers).codes)
    assert torch.equal(model.encode(waves), model.encode(wave_of(mu_law(waves))))


@pytest.mark.parametrize("config", [TINY, MEL])
def test_the_prior_learns_the_codes_of_whole_utterances(config: AudioConfig) -> None:
    """What a crop would sound like by itself is not what it is in its utterance: spectra are relative to all of it."""
    model = tiny_model(config).vqvae
    waves = [torch.rand(n) * loud * 2 - loud for n, loud in ((9_000, 0.1), (700, 0.5))]
    audio = Audio(waves, torch.tensor([0, 1]), ("ann", "bob"), ("a", "b"), None, 16_000)
    own = [codes.tolist() for codes in encode_waves(model, waves)]
    objective = SpeechCodesObjective(WaveNet(WaveNetConfig(config.num_codes, layers=2)), model, audio, 16)
    batch = objective.dataset.batch(0, 20)
    for codes, speaker in zip(batch["classes"].tolist(), batch["speakers"].tolist(), strict=True):
        said = str((own[speaker] * 16)[: max(len(own[speaker]), 16)])[1:-1]
        assert str(codes)[1:-1] in said
    assert objective.loss(batch)[0].isfinite()


@pytest.mark.parametrize("crop", [1, 2, 64, 320, 640])
def test_the_prior_sees_no_more_than_it_learns_from(crop: int) -> None:
    config = prior_config(TINY, crop)
    deeper = dataclasses.replace(config, layers=config.layers + 1)
    assert 1 + sum(config.dilations) <= max(crop, 3)
    assert 1 + sum(deeper.dilations) > crop


@pytest.mark.parametrize("config", [TINY, MEL])
def test_what_is_said_alone_is_said_beside_others(config: AudioConfig) -> None:
    model = tiny_model(config)
    model.vqvae.decoder.double()  # rounding depends on how many are drawn at once
    short, long = torch.rand(501) * 0.2, torch.rand(1_300) * 0.6 - 0.3
    speakers = torch.tensor([0, 1])
    beside, _ = model.convert([short, long], speakers)
    assert torch.equal(model.convert([short], speakers[:1])[0], beside)


def test_the_decoder_is_told_who_speaks_and_the_prior_and_it_how_hoarse() -> None:
    model = tiny_model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    classes, vectors = torch.randint(256, (2, 40)), torch.randn(2, 4, 5)
    ann, bob = (model.vqvae.nats(classes, vectors, torch.tensor([s, s])) for s in (0, 1))
    assert not torch.isclose(ann, bob).any()
    wave = torch.rand(80) - 0.5
    as_ann, as_bob = model.convert([wave, wave], torch.tensor([0, 1]))
    ann_again, _ = model.convert([wave, wave], torch.tensor([0, 0]))
    assert torch.equal(as_ann, ann_again)
    assert not torch.equal(as_bob, model.convert([wave, wave], torch.tensor([0, 0]))[1])
    cold = [model.convert([wave], torch.tensor([0]), seed=seed, temperature=1e-3)[0] for seed in (1, 2)]
    assert torch.equal(cold[0], cold[1])  # there is but the likeliest
    new = [model.sample(5, torch.tensor([0]), seed=seed, temperature=1e-3) for seed in (1, 2)]
    assert torch.equal(new[0], new[1])


@pytest.mark.parametrize("config", [TINY, MEL])
def test_a_model_comes_back_as_it_was_saved(tmp_path: Path, config: AudioConfig) -> None:
    model = tiny_model(config).bfloat16().float()
    model.save_pretrained(tmp_path / "model", card="# Mine\n")
    again = AudioModel.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    assert torch.equal(again.sample(4, torch.tensor([0, 1])), model.sample(4, torch.tensor([0, 1])))
    wave = torch.rand(1, 4_000) - 0.5
    assert torch.equal(again.vqvae.encode(wave), model.vqvae.encode(wave))


def test_a_damaged_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model", card="# Mine\n")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "kind": "image"}))
    with pytest.raises(UserError, match="not a model of speech"):
        AudioModel.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "speakers": ["ann"]}))
    with pytest.raises(UserError, match="damaged"):
        AudioModel.from_pretrained(tmp_path / "model")
    for kind in ([], {}, "films"):
        (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "kind": kind}))
        with pytest.raises(
            UserError, match=r"config.json is damaged .*no known kind|config.json is damaged .*unhashable"
        ):
            AudioModel.from_pretrained(tmp_path / "model")
    wider = {**config, "audio": {**config["audio"], "width": 16}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(wider))
    with pytest.raises(UserError, match="do not fit"):
        AudioModel.from_pretrained(tmp_path / "model")


def test_a_prior_that_knows_nothing_takes_log_k_bits_and_the_unigram_what_was_counted() -> None:
    model = tiny_model()
    torch.nn.init.zeros_(model.prior.logits.weight)
    torch.nn.init.zeros_(model.prior.logits.bias)
    codes = [torch.zeros(9, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)]
    bits = prior_bits(model.prior, codes, [torch.zeros(1_000, dtype=torch.int64)], 5)
    assert bits["prior"] == pytest.approx(3)
    assert bits["unigram"] == pytest.approx(math.log2(1_008 / 1_001))


def test_waves_and_voices_that_cannot_be_are_refused() -> None:
    model, wave = tiny_model(), torch.zeros(400)
    with pytest.raises(UserError, match=r"Waves are floats \[B, T\] .* not torch.int16"):
        model.vqvae.encode(wave[None].short())
    for speakers in ([0], [0, 1, 0], [0, 2], [-1, 0]):
        with pytest.raises(UserError, match=r"Speakers are int64 \[2\], from 0 to 1, not int64"):
            model.convert([wave, wave], torch.tensor(speakers))
    with pytest.raises(UserError, match="Speakers are int64"):
        model.sample(1, torch.tensor([2]))


def test_a_spectrogram_shows_a_tone_where_it_is() -> None:
    wave = torch.sin(torch.arange(8_000) * (2 * math.pi * 2_000 / 16_000))
    picture = spectrogram(wave)
    assert picture.shape == (257, 63, 3)
    assert int(picture[:, 30, 0].argmin()) == 256 - 64  # a quarter of 8 kHz, from below
    assert spectrogram(torch.zeros(100)).shape == (257, 1, 3)


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="does not divide into hops"):
        AudioConfig((2, 2), hop=64)
    with pytest.raises(UserError, match="at least"):
        AudioConfig((2,) * 6, num_codes=0)

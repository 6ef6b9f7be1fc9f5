"""The commands for speech, run as a user would, on a little of it."""

import json
import shutil
import wave
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.command_line import refused, run
from tests.made_speech import write_speech
from worldmodel.audio_model import AudioModel
from worldmodel.sounds import write_wav

TINY_TRAINING = [
    "--steps", "2", "--batch", "2", "--heard", "1280", "--spoken", "640", "--prior-steps", "2", "--prior-batch", "2"
]  # fmt: skip


def samples(path: Path) -> int:
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return file.getnframes()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `worldmodel train-audio` has been."""
    out = tmp_path_factory.mktemp("run")
    for _ in range(2):  # the second time it resumes
        assert run("train-audio", speech, "--preset", "25hz", "--out", out, "--device", "cpu", *TINY_TRAINING) == 0
    return out


def test_training_can_be_heard_and_seen_in_tensorboard(trained: Path) -> None:
    log = EventAccumulator(str(trained / "vqvae")).Reload()
    sounds = {"speech/given", "speech/reconstructed", "speech/converted"}
    assert set(log.Tags()["audio"]) == set(log.Tags()["images"]) == sounds
    assert "speech/bits per sample" in log.Tags()["scalars"]
    assert log.Audio("speech/given")[-1].sample_rate == 16_000
    card = (trained / "model" / "README.md").read_text()
    assert "25 a second, of 128" in card
    assert "--preset 25hz" in card


def test_training_goes_on_with_the_weights_of_a_model(trained: Path, speech: Path, tmp_path: Path) -> None:
    start = AudioModel.from_pretrained(trained / "model")
    tiny = ["--batch", 2, "--heard", 1280, "--spoken", 640]
    prior = ["--prior-steps", 2, "--prior-batch", 2]
    argv = ["train-audio", speech, "--preset", "25hz", "--init", tmp_path / "model", "--steps", 0, *prior]
    shutil.copytree(trained / "model", tmp_path / "model")
    assert run(*argv, "--out", tmp_path / "on") == 0
    on = AudioModel.from_pretrained(tmp_path / "on" / "model")
    torch.testing.assert_close(on.vqvae.state_dict(), start.vqvae.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(on.prior.state_dict(), start.prior.state_dict(), rtol=0, atol=0.01)  # two small steps
    assert run(*argv, *tiny, "--settle-steps", 1, "--out", tmp_path / "settled") == 0
    # Of one that has settled the decoder goes on, and its codes stay what they are.
    settled = AudioModel.from_pretrained(tmp_path / "settled" / "model")
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(tmp_path / "settled" / "model", tmp_path / "model")
    assert "holds a training with init_weights" in refused(*argv, "--out", tmp_path / "on")
    assert run(*argv, *tiny, "--settle-steps", 2, "--out", tmp_path / "more") == 0
    more = AudioModel.from_pretrained(tmp_path / "more" / "model").vqvae
    for part in ("encoder", "quantizer"):
        before, after = (getattr(vqvae, part).state_dict() for vqvae in (settled.vqvae, more))
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    before, after = settled.vqvae.decoder.state_dict(), more.decoder.state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0.01)
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    argv += ["--out", tmp_path / "no"]
    argv[argv.index("--steps") + 1] = 1
    assert "has settled: its encoder learns no more" in refused(*argv)
    argv[argv.index("--init") + 1] = trained / "model"
    assert "mend --prior-crop" in refused(*argv, "--prior-crop", 1280)
    assert "none of the preset 64x" in refused(*argv, "--preset", "64x")
    config = replace(start.config, speakers=("ann", "eve"))
    AudioModel(config).save_pretrained(tmp_path / "eve", card="")
    assert "knows other speakers" in refused(*argv, "--init", tmp_path / "eve")
    argv[argv.index("--steps") + 1] = 0
    assert "--lr would do nothing with --steps 0" in refused(*argv, "--lr", 0.5)
    del argv[argv.index("--init") : argv.index("--init") + 2]
    assert "from scratch learns nothing" in refused(*argv)
    assert not (tmp_path / "no").exists()


def test_utterances_are_reconstructed(trained: Path, speech: Path) -> None:
    out = trained / "reconstructions"
    argv = ["--model", trained / "model", "--data", speech, "--n", 2, "--seconds", 0.05, "--out", out]
    assert run("audio-reconstruct", *argv) == 0
    names = ["00-ann1-given.wav", "01-ann1-reconstructed.wav", "02-bob1-given.wav", "03-bob1-reconstructed.wav"]
    assert sorted(path.name for path in out.glob("*.wav")) == names
    assert {samples(out / name) for name in names} == {800}
    assert Image.open(out / "spectrograms.png").height > 4 * 257


def test_voices_are_converted_and_speech_is_made_up(
    trained: Path,
    speech: Path,
) -> None:
    model, out = ["--model", trained / "model"], trained / "conversions"
    argv = [*model, "--data", speech, "--split", "new-speakers", "--seconds", 0.05, "--n", 1, "--out", out]
    assert run("audio-convert", *argv, "--speaker", "bob", "ann") == 0
    names = ["00-cy0-given.wav", "01-cy0-as-bob.wav", "02-cy0-as-ann.wav"]
    assert sorted(path.name for path in out.glob("*.wav")) == names
    assert (out / names[1]).read_bytes() != (out / names[2]).read_bytes()
    assert run("audio-sample", *model, "--seconds", 0.08, "--out", out / "new") == 0
    assert samples(out / "new" / "01-as-bob.wav") == 1_280
    assert run("audio-sample", *model, "--seconds", 0.01, "--out", out / "short") == 0
    assert samples(out / "short" / "00-as-ann.wav") == 640  # one latent, the least there is


def test_codes_are_mapped_to_phonemes(trained: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "phonemes.json"
    assert run("audio-phonemes", "--model", trained / "model", "--data", speech, "--out", out) == 0
    found = json.loads(out.read_text())
    assert found["accuracy"]["most_frequent"]["test"]["all"] == pytest.approx(3 / 5)
    assert found["accuracy"]["mfcc_k_means"]["test"]["all"] > 0.9
    assert len(found["phonemes"]) == 128
    assert set(found["phonemes"]) <= {"a", "s", None}  # None: this code was never heard
    assert "a" in found["phonemes"]
    printed = capsys.readouterr().out
    assert f"the model's codes: {found['accuracy']['codes']['test']['all']:.1%}" in printed


def test_speech_is_written_whole_or_not_at_all(trained: Path) -> None:
    argv = ["audio-sample", "--model", trained / "model", "--seconds", 0.04, "--out", trained / "cut"]
    with mock.patch("scripts.utterances.write_png", side_effect=KeyboardInterrupt):
        assert run(*argv) == 130
    assert not (trained / "cut").exists()
    assert run(*argv) == 0


def test_what_is_in_the_way_is_said_before_anything_is_drawn(trained: Path, speech: Path) -> None:
    full, model = trained / "full", ["--model", trained / "model"]
    full.mkdir()
    (full / "mine.wav").write_bytes(b"precious")
    never = AssertionError("drawn in vain")
    with (
        mock.patch.object(AudioModel, "sample", side_effect=never),
        mock.patch.object(AudioModel, "convert", side_effect=never),
        mock.patch("scripts.audio_phonemes.load_audio", side_effect=never),
    ):
        for out in (full, full / "mine.wav"):
            assert "holds something else (mine.wav)" in refused("audio-sample", *model, "--out", out)
            argv = [*model, "--data", speech, "--out", out]
            assert "holds something else (mine.wav)" in refused("audio-reconstruct", *argv)
            assert "holds something else (mine.wav)" in refused("audio-convert", *argv, "--speaker", "bob")
        assert "full is a folder" in refused("audio-phonemes", *model, "--data", speech, "--out", full)
        assert "Nothing can be written in" in refused("audio-sample", *model, "--out", full / "mine.wav" / "deeper")
    assert (full / "mine.wav").read_bytes() == b"precious"


def test_mistakes_are_named_in_a_sentence(trained: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = ["--model", trained / "model"], ["--data", speech]
    mistakes = [
        (["audio-convert", *model, *data, "--speaker", "eve"], "no speaker eve; the model knows ann, bob"),
        (["audio-sample", *model, "--speaker", "cy"], "no speaker cy; the model knows ann, bob"),
        (["audio-convert", *model, *data, "--speaker", "bob", "bob"], "one voice or more, each once"),
        (["audio-convert", *model, *data, "--speaker"], "one voice or more"),
        (["audio-sample", *model, "--seconds", "nan"], "--seconds is from one sample"),
        (["audio-sample", *model, "--seed", 2**64], "--seed is from 0 to"),
        (
            ["audio-sample", *model, "--temperature", 1e-9],
            "temperature is from 1e-6",
        ),
        (["audio-sample", "--model", "dmlab-seekavoid"], "not a model of speech"),
        (["audio-reconstruct", *model, *data, "--n", 0], "--n is 1 or more"),
        (["audio-reconstruct", *model, *data, "--seconds", 1e-9], "--seconds is from one sample, 6.25e-05, to 60"),
        (["audio-reconstruct", *model, *data, "--seconds", "inf"], "to 60, not inf"),
        (["audio-reconstruct", *model, "--data", speech / "none"], "There is no folder"),
        (["train-audio", speech, "--out", trained, "--preset", "64x"], "holds a training with preset 25hz"),
        (["train-audio", speech, "--out", trained / "x", "--preset", "25hz", "--heard", 639], "640 samples"),
        (["train-audio", speech, "--out", trained / "x", "--preset", "25hz", "--heard", 10**12], "1048576 at most"),
        (
            ["train-audio", speech, "--out", trained / "x", "--heard", 640, "--spoken", 641],
            "--spoken is 1 to --heard, 640, not 641",
        ),
        (["train-audio", speech, "--out", trained / "x", "--seed", 2**64], "seed is from 0 to 4294967295"),
        (["audio-phonemes", *model, "--data", speech / "none"], "There is no folder"),
    ]
    for argv, sentence in mistakes:
        assert run(*argv) == 2, argv
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1


def test_long_names_leave_room_for_what_tells_sounds_apart(trained: Path, tmp_path: Path) -> None:
    speech = write_speech(tmp_path)
    manifest = json.loads((speech / "manifest.json").read_text())
    for utterance in manifest["utterances"]:
        utterance["utt"] = 80 * "語" + utterance["utt"]
    (speech / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "out"
    argv = ["--model", trained / "model", "--data", speech, "--n", 1, "--seconds", 0.01, "--out", out]
    assert run("audio-reconstruct", *argv) == 0
    assert sorted(path.name for path in out.glob("*.wav")) == [
        f"00-{33 * '語'}-given.wav",
        f"01-{33 * '語'}-reconstructed.wav",
    ]


def test_a_training_does_not_go_on_with_other_speech_or_among_it(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "train.json").read_text())
    speech = write_speech(tmp_path)
    (tmp_path / "run" / "train.json").write_text(json.dumps({**settings, "speakers": ["ann", "eve"]}))
    argv = ["train-audio", settings["data"], "--preset", "25hz", "--device", "cpu", *TINY_TRAINING]
    assert "holds a training with speakers ['ann', 'eve']" in refused(*argv, "--out", tmp_path / "run")
    assert "lies in" in refused("train-audio", speech, "--preset", "25hz", "--out", speech / "new", *TINY_TRAINING)


def test_utterances_shorter_than_a_latent_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, length in (("a.wav", 1_000), ("b.wav", 1_000), ("c.wav", 500)):
        (tmp_path / "data" / "ann").mkdir(parents=True, exist_ok=True)
        write_wav(tmp_path / "data" / "ann" / name, torch.zeros(length), 16_000)
    argv = ["train-audio", tmp_path / "data", "--preset", "25hz", "--out", tmp_path / "run", "--device", "cpu"]
    assert run(*argv, *TINY_TRAINING) == 2
    assert "Too short: ann/c.wav" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()  # or a training of what is long enough could not begin there

"""Speech: every kind of folder gives its own utterances, and whatever is wrong with one is said, by name."""

import json
import os
import struct
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel import audio_data
from worldmodel.audio_data import Audio, Split, load_audio
from worldmodel.errors import UserError

soundfile = pytest.importorskip("soundfile", reason="the extra [audio] is not installed")
pytest.importorskip("scipy", reason="the extra [audio] is not installed")

SPLITS: tuple[Split, ...] = ("train", "test", "new-speakers")
RATES = [8_000, 11_025, 22_050, 44_100, 48_000]


def write(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype)


def load_one(samples: np.ndarray, rate: int = 16_000, subtype: str = "FLOAT", sample_rate: int = 16_000) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "ann" / "a.wav", samples, rate, subtype)
        return load_audio(folder, sample_rate=sample_rate).waves[0]


# Folders by speaker

LAYOUTS = {
    "VCTK": (
        [f"wav48_silence_trimmed/{s}/{s}_{i:03}_mic1.flac" for s in ("p225", "s5") for i in range(12)],
        [*(f"wav48_silence_trimmed/p225/p225_{i:03}_mic2.flac" for i in range(9)), "wav48/p1/p1_001.wav"],
    ),
    "VCTK as it was": ([f"wav48/{s}/{s}_{i:03}.wav" for s in ("p225", "p226") for i in range(12)], ["ann/a.wav"]),
    "LibriSpeech": ([f"{s}/{c}/{s}-{c}-{i:04}.flac" for s in (103, 19) for c in (198, 227) for i in range(6)], []),
    "by speaker": (["ann/1.wav", "ann/2.flac", "ann/3.WAV", "bob/1.wav", "cy/a.flac", "cy/b.flac"], ["bob/.x/a.wav"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_speakers_utterances_arrive(tmp_path: Path, layout: str) -> None:
    used, unused = LAYOUTS[layout]
    for i, file in enumerate([*used, *unused]):
        write(tmp_path / file, np.full(i + 1, i / 128))
    for file in ("README.txt", ".cache/a.wav", f"{Path(used[0]).parent}/.a.wav", f"{Path(used[0]).parent}/a.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("no audio")

    root = f"{used[0].split('/')[0]}/" if layout.startswith("VCTK") else ""
    speakers = [file.removeprefix(root).split("/")[0] for file in used]
    train, test = (load_audio(str(tmp_path), split) for split in ("train", "test"))
    assert train.speaker_names == test.speaker_names == tuple(sorted(set(speakers)))
    for audio, held_out in ((train, False), (test, True)):
        chosen = [i for i, s in enumerate(speakers) if ((i - speakers.index(s)) % 10 == 1) == held_out]
        assert audio.names == tuple(used[i].removeprefix(root) for i in chosen)
        assert [audio.speaker_names[s] for s in audio.speakers] == [speakers[i] for i in chosen]
        for i, samples in zip(chosen, audio.waves, strict=True):
            assert torch.equal(samples, torch.full((i + 1,), i / 128))
        assert (audio.speakers.dtype, audio.phones, audio.sample_rate) == (torch.int64, None, 16_000)
    with pytest.raises(UserError, match="holds out no speakers: that takes a manifest.json"):
        load_audio(str(tmp_path), "new-speakers")


# Phoneme times


def item(**changes: Any) -> dict[str, Any]:
    return {"utt": "u", "speaker": "ann", "file": "a.wav", "offset": 0, "n": 9, "phones": [[0, 9, "AA"]], **changes}


def write_manifest(folder: Path, items: object) -> None:
    (folder / "manifest.json").write_text(json.dumps({"utterances": items}))


@settings(max_examples=12)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_the_splits_of_a_manifest_share_out_all_that_is_said(utterances: list[int], random: Any) -> None:
    speakers = sorted(f"s{i}" for i, n in enumerate(utterances) for _ in range(n))
    items = {f"u{i:03}": item(utt=f"u{i:03}", speaker=s, offset=i, n=2) for i, s in enumerate(speakers)}
    for i, one in enumerate(items.values()):
        one.update(file=f"{i % 2}.flac", phones=[[0, 1, "AA"], [1, 2, f"P{i}"]])
    samples = np.arange(len(items) + 1) / 128
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "0.flac", samples)
        write(Path(folder) / "1.flac", -samples)
        write_manifest(Path(folder), random.sample(list(items.values()), len(items)))
        parts: dict[Split, Audio] = {}
        for split in SPLITS:
            try:
                parts[split] = load_audio(folder, split)
            except UserError:  # there need not be any
                known_ones = [n for i, n in enumerate(utterances) if i % 6 != 2]
                assert (split == "new-speakers" and len(utterances) < 3) or (split == "test" and max(known_ones) == 1)
    assert sorted(name for audio in parts.values() for name in audio.names) == list(items)
    for split, audio in parts.items():
        new = sorted(set(speakers))[2::6]
        known = [name for name in sorted(set(speakers)) if name not in new]
        assert audio.speaker_names == tuple(new if split == "new-speakers" else known)
        assert list(audio.names) == sorted(audio.names) and audio.phones is not None
        for name, speaker, heard, phones in zip(audio.names, audio.speakers, audio.waves, audio.phones, strict=True):
            i = int(name[1:])
            assert audio.speaker_names[speaker] == speakers[i]
            assert split == "new-speakers" or ((i - speakers.index(speakers[i])) % 10 == 1) == (split == "test")
            assert heard.tolist() == [(-1) ** i * i / 128, (-1) ** i * (i + 1) / 128]
            assert phones == [(0, 1, "AA"), (1, 2, f"P{i}")]


@settings(max_examples=25)
@given(st.sampled_from(RATES), st.lists(st.integers(1, 3_000), min_size=1, max_size=9))
def test_phones_stay_where_they_are_at_any_sampling_rate(rate: int, lengths: list[int]) -> None:
    ends = np.cumsum(lengths).tolist()
    phones = [[end - n, end, f"P{i}"] for i, (n, end) in enumerate(zip(lengths, ends, strict=True))]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a.wav", np.zeros(ends[-1] + 50), rate)
        write_manifest(Path(folder), [item(offset=50, n=ends[-1], phones=phones)])
        audio = load_audio(folder)
    assert audio.phones is not None
    starts, stops, names = zip(*audio.phones[0], strict=True)
    assert names == tuple(f"P{i}" for i in range(len(lengths)))
    assert (starts[0], stops[-1]) == (0, len(audio.waves[0])) and starts[1:] == stops[:-1]
    np.testing.assert_allclose(stops, np.array(ends) * 16_000 / rate, atol=1)
    assert all(type(time) is int for time in (*starts, *stops))


# Samples


@pytest.mark.parametrize("width", [1, 2, 3])
def test_samples_of_any_width_arrive_and_channels_are_averaged(tmp_path: Path, width: int) -> None:
    full = 256**width // 2
    numbers = np.array([[0, 0], [1, 1], [-full, -full], [full - 1, -full], [full // 2, 0], [-1, 3]])  # [T, channels]
    for channels in (1, 2):
        (tmp_path / f"{channels}").mkdir()
        with wave.open(str(tmp_path / f"{channels}" / "a.wav"), "wb") as file:
            file.setparams((channels, width, 16_000, len(numbers), "NONE", ""))
            for number in (numbers[:, :channels].ravel() + (128 if width == 1 else 0)).tolist():
                file.writeframes(number.to_bytes(width, "little", signed=width > 1))
    mono, stereo = load_audio(str(tmp_path)).waves
    np.testing.assert_allclose(stereo, numbers.mean(1) / full, atol=1e-7)
    np.testing.assert_allclose(mono, numbers[:, 0] / full, atol=1e-7)


@pytest.mark.parametrize("rate", [*RATES, 16_000])
@pytest.mark.parametrize("sample_rate", [16_000, 24_000])
def test_a_tone_sounds_the_same_at_any_sampling_rate(rate: int, sample_rate: int) -> None:
    n = rate // 2 + 7
    tone = load_one(0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate), rate, sample_rate=sample_rate)
    assert (tone.dtype, len(tone)) == (torch.float32, -(-n * sample_rate // rate))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(tone)) / sample_rate)
    inside = slice(200, -200)  # at its ends a tone is none
    np.testing.assert_allclose(tone[inside], expected[inside], atol=2e-3)


@pytest.mark.parametrize("rate", [*RATES, 16_000])
def test_silence_stays_silence(rate: int) -> None:
    assert not load_one(np.zeros(500), rate).any()


def test_what_is_too_loud_is_clipped() -> None:
    assert load_one(np.array([0.5, 3, -3, 1e30, -1])).tolist() == [0.5, 1, -1, 1, -1]
    square = np.sign(np.sin(np.arange(2_000) / 20) + 1e-9)
    for rate in RATES:  # a filter overshoots at every edge
        assert load_one(square, rate).abs().max() == 1


# What is wrong with a folder


def flaw(path: Path, position: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[position : position + len(content)] = content
    path.write_bytes(data)


def write_floats(path: Path, samples: list[Any]) -> None:
    write(path, np.array(samples), 8_000, "FLOAT")


NOISE = np.random.default_rng(0).uniform(-0.9, 0.9, 4_000)
FLAC_SAMPLES = 22  # where a flac says how many there are: four bytes, and half of the one before


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda ann: (ann / "a.wav").write_text("no audio"), "ann.a.wav is not audio, or was damaged"),
        (lambda ann: (ann / "a.wav").write_bytes(b""), "ann.a.wav is not audio, or was damaged"),
        (lambda ann: os.truncate(ann / "a.wav", 3_000), "ann.a.wav was cut short"),
        (lambda ann: os.truncate(ann / "c.flac", 3_000), "ann.c.flac is not audio, or was damaged or cut short"),
        (lambda ann: flaw(ann / "c.flac", FLAC_SAMPLES, b"\x7f"), "c.flac says that it has 2130710432 samples"),
        (lambda ann: flaw(ann / "c.flac", FLAC_SAMPLES, bytes(4)), "c.flac says that it has .* samples: it was dam"),
        (lambda ann: flaw(ann / "a.wav", 24, bytes(4)), "ann.a.wav is not audio, or was damaged"),
        (lambda ann: flaw(ann / "a.wav", 24, struct.pack("<i", 999)), "a.wav says that it has 999 samples a second"),
        (lambda ann: flaw(ann / "a.wav", 24, struct.pack("<i", 2**30)), "says that it has 1073741824 samples a second"),
        (lambda ann: write(ann / "a.wav", NOISE[:0]), "ann.a.wav is empty: it has not one sample"),
        (lambda ann: write_floats(ann / "a.wav", [0, np.nan]), "a.wav has samples that are not numbers"),
        (lambda ann: write_floats(ann / "a.wav", [0, np.inf]), "a.wav has samples that are not numbers"),
        (lambda ann: write_floats(ann / "a.wav", [[np.inf, -np.inf]]), "a.wav has samples that are not numbers"),
        (lambda ann: (ann / "0.wav").mkdir(), "There is no file .*ann.0.wav"),
        (lambda ann: (ann.parent / "bob").mkdir(), "bob has no audio .*: add some, or remove the speaker"),
        (lambda ann: [path.unlink() for path in ann.iterdir()], "has no audio of a known kind: VCTK,"),
        (lambda ann: [*map(Path.unlink, ann.iterdir()), ann.rmdir()], "has no audio of a known kind: VCTK,"),
        (lambda ann: (ann.parent / "wav48").mkdir(), "wav48 has no audio of a known kind"),
        (lambda ann: ann.parent.rename(ann.parent.with_name("gone")), "There is no folder .*speech"),
    ],
)
@pytest.mark.filterwarnings("error")  # the sentence is all there is to read
def test_what_is_wrong_with_recordings_is_said(tmp_path: Path, harm: Callable[[Path], object], sentence: str) -> None:
    folder = tmp_path / "speech"
    for name in ("a.wav", "b.wav", "c.flac"):
        write(folder / "ann" / name, NOISE)
    assert len(load_audio(str(folder))) == 2
    harm(folder / "ann")
    with pytest.raises(UserError, match=sentence) as error:
        load_audio(str(folder))
    assert "\n" not in str(error.value)


BAD_TIMES: list[dict[str, object]] = [{"offset": -1}, {"n": 0, "phones": []}]
BAD_TIMES += [{"phones": [[0, 8, "AA"]]}, {"phones": [[1, 9, "AA"]]}, {"phones": [[0, 9, "AA"], [9, 10, "B"]]}]
BAD_TIMES += [{"phones": [[0, 4, "AA"], [5, 9, "B"]]}, {"phones": [[0, 5, "AA"], [4, 9, "B"]]}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n": 30, "phones": [[0, 30, "AA"]]}, "a.wav was cut short: it has no samples 0 to 30"),
        ({"offset": 12}, "a.wav was cut short: it has no samples 12 to 21"),
        ({"file": "b.wav"}, "There is no file .*b.wav"),
        ({"file": "b" * 300 + ".wav"}, "bbb.wav is not audio"),
        *(({"file": file}, "is no .*wav in the folder") for file in ("../a.wav", "x/a.wav", "/a.wav", "..", "a.raw")),
        *((times, "phones go without gaps from 0 to n") for times in BAD_TIMES),
        ({"phones": [[0, 12, "AA"], [12, 9, "B"]]}, "a phone ends after it has begun"),
        *(({key: value}, "whole numbers") for key in ("offset", "n") for value in (0.5, "9", None, True, 1e400)),
        ({"phones": [[0, 9.0, "AA"]]}, "whole numbers"),
        *(({key: value}, "are names") for key in ("utt", "speaker") for value in ("", 3, None, ["a"])),
        ({"phones": [[0, 9, 7]]}, "are names"),
        *(({"phones": value}, "not as it should be") for value in (None, 3, [3], [[0, 9]], "abc", {"a": 1})),
    ],
)
def test_what_is_wrong_with_an_utterance_is_said(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    write(tmp_path / "a.wav", np.zeros(20))
    (tmp_path / "a.raw").write_bytes(bytes(40))
    write_manifest(tmp_path, [item(**changes)])
    with pytest.raises(UserError, match=sentence) as error:
        load_audio(str(tmp_path))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", list(item()))
def test_what_an_utterance_lacks_is_said(tmp_path: Path, key: str) -> None:
    write_manifest(tmp_path, [item(), {name: value for name, value in item().items() if name != key}])
    with pytest.raises(UserError, match=f"Utterance 1 in .*manifest.json is not as it should be .*{key}"):
        load_audio(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"\xff\xfe", b"[" * 100_000, b"[]", b"3", b"{}"]
    + [b'{"utterances": %s}' % value for value in (b"[]", b"{}", b"null", b"3", b'"abc"', b"[3]", b'["abc"]', b"[[]]")],
)
def test_what_is_wrong_with_a_manifest_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="manifest.json (has no utterances|cannot be read|is not as it sh)") as error:
        load_audio(str(tmp_path))
    assert "\n" not in str(error.value)


@settings(max_examples=100)
@given(st.sampled_from(["wav PCM_16", "wav FLOAT", "wav PCM_U8", "flac PCM_16", "flac PCM_24"]), st.data())
def test_a_damaged_recording_is_named_or_read_but_never_crashes(kind: str, data: st.DataObject) -> None:
    suffix, subtype = kind.split()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ann" / f"a.{suffix}"
        write(path, NOISE[:400].reshape(200, 2), 8_000, subtype)
        content = bytearray(path.read_bytes())
        header = st.integers(0, 59)
        for position in data.draw(st.lists(header | st.integers(0, len(content) - 1), max_size=4)):
            content[position] = data.draw(st.sampled_from([0, 127, 128, 255]) | st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
        try:
            (samples,) = load_audio(folder).waves
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert len(samples) >= 1 and samples.isfinite().all() and samples.abs().max() <= 1


def test_what_is_asked_for_and_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, length in (("ann", 320), ("bob", 319)):
        write(tmp_path / name / "a.wav", np.zeros(length))
    audio = load_audio(str(tmp_path))
    assert (len(audio), audio.speaker_names) == (2, ("ann", "bob"))
    audio.check_length(319)
    with pytest.raises(UserError, match="Too short: bob/a.wav; the model makes one latent of 320 samples at 16000 Hz"):
        audio.check_length(320)
    with pytest.raises(UserError, match="has no test utterances: some speaker has to have two, or take another split"):
        load_audio(str(tmp_path), "test")
    with pytest.raises(UserError, match='splits are train, test, new-speakers, not "val"'):
        load_audio(str(tmp_path), "val")  # type: ignore[arg-type]
    for rate in (0, 999, 400_001):
        with pytest.raises(UserError, match=f"1000 to 400000 Hz, not {rate}"):
            load_audio(str(tmp_path), sample_rate=rate)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match="soundfile is not installed; it comes with the extra .audio."):
        load_audio(str(tmp_path))


def test_what_a_speakers_folders_hold_is_all_heard(tmp_path: Path) -> None:
    names = {"ann/a.wav", "ann/later/b.wav", "ann/later/c_mic2.flac", "bob/d.wav", "bob/e.wav"}
    for name in names:
        write(tmp_path / name, np.zeros(320))
    assert {name for split in ("train", "test") for name in load_audio(str(tmp_path), split).names} == names


def test_samples_of_any_size_stay_numbers(tmp_path: Path) -> None:
    """The sum of two channels may be more than a float holds, and what a filter makes of that is no number."""
    loud = np.zeros((800, 2), np.float32)
    loud[400] = 3e38
    write(tmp_path / "ann" / "a.wav", loud, 8_000, "FLOAT")
    (wave,) = load_audio(str(tmp_path)).waves
    assert wave.isfinite().all() and wave.abs().max() == 1


@pytest.mark.parametrize("stray", ["a.wav", "ann/one/two/a.flac", "bob/one/two/three/a.wav"])
def test_recordings_that_nobody_is_known_to_have_made_are_named(stray: str, tmp_path: Path) -> None:
    for name in ("ann/a.wav", "bob/a.wav", stray):
        write(tmp_path / name, np.zeros(320))
    with pytest.raises(UserError, match=f"{stray} lies where nobody says who speaks"):
        load_audio(str(tmp_path))


def test_of_many_utterances_some_are_read_spread_evenly_and_the_reading_shown(tmp_path: Path) -> None:
    for speaker in ("ann", "bob"):
        for i in range(4):
            write(tmp_path / speaker / f"{i}.wav", np.zeros(320 + i))
    whole, shown = load_audio(str(tmp_path)), []
    part = load_audio(str(tmp_path), most=3, progress=lambda reading: (shown.append(1) or one for one in reading))
    assert part.names == whole.names[::2] == ("ann/0.wav", "ann/3.wav", "bob/2.wav")
    assert (part.speaker_names, part.speakers.tolist()) == (("ann", "bob"), [0, 0, 1])
    assert len(shown) == 3
    assert load_audio(str(tmp_path), most=99).names == whole.names


def test_an_interrupt_waits_only_for_what_is_being_read(tmp_path: Path) -> None:
    def interrupted(reading: list[object]) -> Iterator[object]:
        yield reading[0]
        raise KeyboardInterrupt

    for i in range(100):
        write(tmp_path / "ann" / f"{i}.wav", np.zeros(1))
    slow = mock.Mock(side_effect=lambda *_: time.sleep(0.05))
    with mock.patch.object(audio_data, "_read", slow), pytest.raises(KeyboardInterrupt):
        load_audio(str(tmp_path), progress=interrupted)  # type: ignore[arg-type]
    assert slow.call_count < 90

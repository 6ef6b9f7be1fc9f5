"""Speech to learn from.

It is whatever lies in a folder, one of

- VCTK, as it is unpacked; of the later version's two microphones the first:

      wav48_silence_trimmed/SPEAKER/*_mic1.flac    or wav48/SPEAKER/*.wav

- one of LibriSpeech's subsets, such as train-clean-100:

      SPEAKER/CHAPTER/*.flac

- a folder of recordings by speaker:

      SPEAKER/*.wav                                or *.flac, and SPEAKER/*/*.wav

- recordings with phoneme times:

      manifest.json       utterances: a list of {utt, speaker, file, offset, n, phones: [[start, end, phone], ...]}, in
                          samples of the file; offset and n are the part of it that is the utterance, and phones tile
                          that part from 0 to n
      *.flac              or *.wav, each of one or many utterances

What is trained on and what is held out is a matter of names and order alone, see `Split`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from worldmodel.errors import UserError, require

Split = Literal["train", "test", "new-speakers"]
"""Of every speaker's utterances, in the order of their names, the second, twelfth, ... are "test", the others "train".

The second rather than the first, so that whoever has two utterances has one to be tested on. Where phonemes are known,
the third speaker, the ninth, ... are in neither: all that they say is "new-speakers".
"""

Phone = tuple[int, int, str]  # first sample, the one behind the last, name
Read = tuple[Tensor, list[Phone] | None]  # a wave, float32 [n], and its phones

SUFFIXES = {".flac", ".wav"}
RATES = range(1_000, 400_001)  # Hz: outside, a header is damaged, and the filter that resamples would fill the memory
MOST_SAMPLES = 2**30  # of one recording, of all channels: 6 hours at 48 kHz; a damaged header may claim any number


@dataclass(frozen=True, eq=False)
class Audio:
    """N utterances in memory.

    waves: N tensors float32 [n], in [-1, 1]; n differs, and is 1 at least.
    speakers: int64 [N], who speaks, an index into `speaker_names`.
    names: of the utterances: where each is in the folder of the speakers, or what the manifest calls it.
    phones: of each utterance what is said when, in samples, without gaps from 0 to n; None where that is not known.
    sample_rate: in Hz.
    """

    waves: list[Tensor]
    speakers: Tensor
    speaker_names: tuple[str, ...]
    names: tuple[str, ...]
    phones: list[list[Phone]] | None
    sample_rate: int

    def __len__(self) -> int:
        return len(self.waves)

    def check_length(self, samples: int) -> None:
        """Raise `UserError` when utterances are shorter than `samples`, such as those of one latent."""
        short = [name for name, wave in zip(self.names, self.waves, strict=True) if len(wave) < samples]
        if short:
            more = f", and {len(short) - 5} others" if len(short) > 5 else ""
            raise UserError(
                f"Too short: {', '.join(short[:5])}{more}; the model makes one latent of {samples} samples at "
                f"{self.sample_rate} Hz; leave out what has fewer."
            )


@dataclass(frozen=True)
class _Utterance:
    name: str
    speaker: str
    path: Path
    offset: int = 0
    samples: int | None = None  # all there are
    phones: list[Phone] | None = None


def load_audio(
    address: str,
    split: Split = "train",
    sample_rate: int = 16_000,
    *,
    most: int | None = None,
    progress: Callable[[list[Future[Read]]], Iterable[Future[Read]]] = iter,
) -> Audio:
    """The utterances in the folder `address`, as described above, in memory, at `sample_rate` Hz.

    Channels are averaged. "train" and "test" have the same speakers, with the same numbers; "new-speakers" has its own.
    Of more than `most`, so many are read, spread evenly over all. `progress` goes through what is being read, and may
    show how far it is.

    Raises `UserError` when there are no such utterances, when any of them cannot be read or is empty, and when
    soundfile or scipy (the extra [audio]) is not installed.
    """
    if sample_rate not in RATES:
        raise UserError(f"A sampling rate is {RATES[0]} to {RATES[-1]} Hz, not {sample_rate}.")
    folder = Path(address)
    if not folder.is_dir():
        raise UserError(f"There is no folder {address}.")
    chosen, speakers = _choose(folder, _find(folder), split)
    if most is not None:
        n = min(most, len(chosen))
        chosen = [chosen[i * len(chosen) // n] for i in range(n)]
    with ThreadPoolExecutor() as pool:  # decoding and resampling hold Python's lock only briefly
        try:
            reading = [pool.submit(_read, utterance, sample_rate) for utterance in chosen]
            read = [part.result() for part in progress(reading)]
        finally:
            pool.shutdown(cancel_futures=True)  # or what ends this would wait until all is read
    phones = [p for _, p in read if p is not None]
    return Audio(
        waves=[wave for wave, _ in read],
        speakers=torch.tensor([speakers.index(utterance.speaker) for utterance in chosen]),
        speaker_names=tuple(speakers),
        names=tuple(utterance.name for utterance in chosen),
        phones=phones or None,  # a manifest has them for every utterance, other folders for none
        sample_rate=sample_rate,
    )


def _choose(folder: Path, utterances: list[_Utterance], split: Split) -> tuple[list[_Utterance], list[str]]:
    """The utterances of a split, and the names of its speakers."""
    if split not in get_args(Split):
        raise UserError(f'The splits are {", ".join(get_args(Split))}, not "{split}".')
    speakers = sorted({utterance.speaker for utterance in utterances})
    new = speakers[2::6] if utterances[0].phones is not None else []
    if split == "new-speakers":
        chosen = [utterance for utterance in utterances if utterance.speaker in new]
        if not chosen:
            raise UserError(f"{folder} holds out no speakers: that takes a manifest.json, and three speakers.")
        return chosen, new
    chosen = []
    speakers = [name for name in speakers if name not in new]
    for name in speakers:
        own = [utterance for utterance in utterances if utterance.speaker == name]
        chosen += [utterance for i, utterance in enumerate(own) if (i % 10 == 1) == (split == "test")]
    if not chosen:
        raise UserError(f"{folder} has no {split} utterances: some speaker has to have two, or take another split.")
    return chosen, speakers


def _find(folder: Path) -> list[_Utterance]:
    """All utterances in a folder, of each speaker in the order of their names."""
    if (folder / "manifest.json").exists():
        return _manifest(folder)
    for part in ("wav48_silence_trimmed", "wav48"):
        if (folder / part).is_dir():  # VCTK's, of which the second microphone heard the same
            return [one for one in _by_speaker(folder / part) if not one.path.stem.endswith("_mic2")]
    return _by_speaker(folder)


def _by_speaker(folder: Path) -> list[_Utterance]:
    """Utterances in folders of the speakers, or in folders in those."""
    paths = {
        place: [path for part in (place, *_folders(place)) for path in _recordings(part)] for place in _folders(folder)
    }
    if not any(paths.values()):
        raise UserError(
            f"{folder} has no audio of a known kind: VCTK, a subset of LibriSpeech, a folder of *.flac or *.wav a "
            "speaker, or a manifest.json."
        )
    for place in paths:
        if not paths[place]:
            raise UserError(f"{place} has no audio (*.flac, *.wav): add some, or remove the speaker.")
    stray = [*_recordings(folder), *(path for place in paths for path in place.glob("*/*/**/*") if _is_recording(path))]
    if stray:
        raise UserError(f"{stray[0]} lies where nobody says who speaks: recordings are in a folder a speaker.")
    return [
        _Utterance(path.relative_to(folder).as_posix(), place.name, path) for place in paths for path in paths[place]
    ]


def _manifest(folder: Path) -> list[_Utterance]:
    path = folder / "manifest.json"
    try:
        items = json.loads(path.read_text("utf-8"))["utterances"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read, or has no utterances ({error!r}).") from error
    if not isinstance(items, list) or not items:
        raise UserError(f"{path} has no utterances.")
    utterances = []
    for i, item in enumerate(items):
        try:
            utterances.append(_item(folder, item))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"Utterance {i} in {path} is not as it should be ({error!r}).") from error
    return sorted(utterances, key=lambda utterance: (utterance.speaker, utterance.name))


def _item(folder: Path, item: Any) -> _Utterance:
    """Raises `KeyError`, `TypeError` or `ValueError` when an item of a manifest is not as it should be."""
    name, speaker, file = (item[key] for key in ("utt", "speaker", "file"))
    offset, samples = item["offset"], item["n"]
    phones = [(start, end, phone) for start, end, phone in item["phones"]]
    if not all(isinstance(text, str) and text for text in (name, speaker, file, *(phone for *_, phone in phones))):
        raise TypeError("utt, speaker, file and phones are names")
    times = [0, *(end for _, end, _ in phones)]
    if not all(type(number) is int for number in (offset, samples, *times, *(start for start, *_ in phones))):
        raise TypeError("offset, n and times are whole numbers of samples")
    if offset < 0 or samples < 1 or [start for start, *_ in phones] != times[:-1] or times[-1] != samples:
        raise ValueError("phones go without gaps from 0 to n, which is 1 at least")
    if any(start >= end for start, end, _ in phones):
        raise ValueError("a phone ends after it has begun")
    if Path(file).name != file or Path(file).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file} is no *.flac or *.wav in the folder")
    return _Utterance(name, speaker, folder / file, offset, samples, phones)


def _read(utterance: _Utterance, sample_rate: int) -> Read:
    """An utterance at `sample_rate`."""
    soundfile, signal = require("soundfile", "audio"), require("scipy.signal", "audio")
    path, offset, samples = utterance.path, utterance.offset, utterance.samples
    try:
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
        with soundfile.SoundFile(path) as file:
            rate, there = file.samplerate, file.frames
            if rate not in RATES:
                raise UserError(f"{path} says that it has {rate} samples a second: it was damaged.")
            samples = there - offset if samples is None else samples
            if offset + samples > there:
                raise UserError(f"{path} was cut short: it has no samples {offset} to {offset + samples}.")
            if samples * file.channels > MOST_SAMPLES:
                raise UserError(f"{path} says that it has {samples} samples: it was damaged, or is to be cut up.")
            if _cut_short(path):
                raise UserError(f"{path} was cut short: it says that it is longer.")
            file.seek(offset)
            wave = file.read(samples, "float32", always_2d=True)  # [n, channels]
    except UnicodeError as error:
        raise UserError(f"{path} has a name that is no text, which its reader cannot open: rename it.") from error
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path} is not audio, or was damaged or cut short ({error}).") from error
    if not len(wave):
        raise UserError(f"{path} is empty: it has not one sample.")
    if len(wave) < samples:
        raise UserError(f"{path} was cut short: it has {len(wave)} of {samples} samples.")
    if not np.isfinite(wave).all():
        raise UserError(f"{path} has samples that are not numbers.")
    wave = np.clip(wave, -1, 1).mean(1)  # float files may do as they like
    if rate != sample_rate:
        common = math.gcd(sample_rate, rate)
        wave = signal.resample_poly(wave, sample_rate // common, rate // common)
    phones = utterance.phones
    if phones is not None and rate != sample_rate:
        # Where one ends, the next begins, and the last at the end.
        times = [round(start * sample_rate / rate) for start, *_ in phones] + [len(wave)]
        phones = [(times[i], times[i + 1], phone) for i, (*_, phone) in enumerate(phones)]
    # The filter may overshoot.
    return torch.from_numpy(np.clip(wave, -1, 1).astype(np.float32, copy=False)), phones


def _cut_short(path: Path) -> bool:
    """Whether a WAV file is shorter than it says; its reader takes what there is."""
    with open(path, "rb") as file:
        head = file.read(8)
    size = int.from_bytes(head[4:], "little") + 8
    return head[:4] == b"RIFF" and size < 2**32 - 1 and path.stat().st_size < size


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _recordings(folder: Path) -> list[Path]:
    """The audio files in a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if _is_recording(path))


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")

"""What the commands for speech say: utterances to say again, and what is said as files and a picture."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import SUFFIXES, Split, load_audio
from worldmodel.errors import UserError
from worldmodel.files import new_folder
from worldmodel.pictures import strips, write_png
from worldmodel.progress import track
from worldmodel.sampling import check_seed, check_temperature
from worldmodel.sounds import spectrogram, write_wav

SHORT = 100  # bytes
LONGEST = 60  # seconds: all that is drawn is in memory at once


@dataclass
class Utterance:
    name: str  # of its file, without the ending, or the beginning of that
    speaker: str
    wave: Tensor  # float [T]


def check_drawing(seconds: float, seed: int, temperature: float) -> None:
    """Raise `UserError` for a length, a seed or a temperature that cannot be."""
    check_temperature(temperature)
    if not 1 / SAMPLE_RATE <= seconds <= LONGEST:
        raise UserError(f"--seconds is from one sample, {1 / SAMPLE_RATE:g}, to {LONGEST}, not {seconds:g}.")
    check_seed(seed)


def choose(data: str, split: Split, n: int, seconds: float) -> list[Utterance]:
    """`n` utterances, or all where there are fewer, spread evenly over the data; of each its beginning."""
    if n < 1:
        raise UserError(f"--n is 1 or more, not {n}.")
    audio = load_audio(data, split, SAMPLE_RATE, most=n)
    return [
        Utterance(_short(name), audio.speaker_names[int(speaker)], wave[: round(seconds * SAMPLE_RATE)])
        for name, speaker, wave in zip(audio.names, audio.speakers, audio.waves, strict=True)
    ]


def _short(name: str) -> str:
    """A name without the ending of a recording's, so long that a file may be called by it and more."""
    name = name.rsplit(".", 1)[0] if Path(name).suffix.lower() in SUFFIXES else name
    return name.encode(errors="ignore")[:SHORT].decode(errors="ignore")


def speaking(samples: range) -> Iterator[int]:
    """The samples to be drawn, with a progress bar."""
    return track(samples, "Speaking")


def write_sounds(folder: Path, sounds: Sequence[tuple[str, Tensor]]) -> None:
    """Labels and waves, float [T], as FOLDER/00-LABEL.wav, 01-..., and all spectra in FOLDER/spectrograms.png.

    The folder is there whole, or not at all. Raises `UserError` where anything else is in its place.
    """
    # Labels have names of utterances and speakers in them, which may be anything.
    labels = [re.sub(r"\W+", "-", label) for label, _ in sounds]
    named = [(f"{i:02}-{label}", wave) for i, (label, (_, wave)) in enumerate(zip(labels, sounds, strict=True))]
    with new_folder(folder.resolve(), ()) as new:
        for name, wave in named:
            write_wav(new / f"{name}.wav", wave, SAMPLE_RATE)
        write_png(new / "spectrograms.png", strips([(name, spectrogram(wave)[None]) for name, wave in named]))

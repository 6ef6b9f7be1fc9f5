"""What the commands for speech say: utterances to say again, and what is said as files and a picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import Split, load_audio
from worldmodel.errors import UserError
from worldmodel.pictures import strips, write_png
from worldmodel.sounds import spectrogram, write_wav

LONGEST = 600  # seconds: all that is drawn is in memory at once


@dataclass
class Utterance:
    name: str  # of its file, without the ending
    speaker: str
    wave: Tensor  # float [T]


def check_drawing(seconds: float, seed: int) -> None:
    """Raise `UserError` for a length or a seed that cannot be."""
    if not 1 / SAMPLE_RATE <= seconds <= LONGEST:
        raise UserError(f"--seconds is from one sample, {1 / SAMPLE_RATE:g}, to {LONGEST}, not {seconds:g}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is from 0 to {2**32 - 1}, not {seed}.")


def choose(data: str, split: Split, n: int, seconds: float) -> list[Utterance]:
    """`n` utterances, spread evenly over the data, of each its beginning."""
    audio = load_audio(data, split, SAMPLE_RATE)
    if not 1 <= n <= len(audio):
        raise UserError(f"--n is from 1 to {len(audio)}, as many utterances as there are.")
    return [
        Utterance(
            audio.names[i].rsplit(".", 1)[0],
            audio.speaker_names[int(audio.speakers[i])],
            audio.waves[i][: round(seconds * SAMPLE_RATE)],
        )
        for i in (n_th * len(audio) // n for n_th in range(n))
    ]


def write_sounds(folder: Path, sounds: Sequence[tuple[str, Tensor]]) -> None:
    """Labels and waves, float [T], as FOLDER/00-LABEL.wav, 01-..., and all spectra in FOLDER/spectrograms.png."""
    # Labels have names of utterances and speakers in them, which may be anything.
    labels = [re.sub(r"\W+", "-", label)[:100] for label, _ in sounds]
    named = [(f"{i:02}-{label}", wave) for i, (label, (_, wave)) in enumerate(zip(labels, sounds, strict=True))]
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in named:
        write_wav(folder / f"{name}.wav", wave, SAMPLE_RATE)
    write_png(folder / "spectrograms.png", strips([(name, spectrogram(wave)[None]) for name, wave in named]))

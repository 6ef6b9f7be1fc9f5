"""What the commands for speech say again: some utterances, and what is left of them as files and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import Split, load_audio
from worldmodel.errors import UserError
from worldmodel.pictures import strips, write_png
from worldmodel.sounds import spectrogram, write_wav


@dataclass
class Utterance:
    name: str
    speaker: str
    wave: Tensor  # float [T]


def choose(data: str, split: Split, n: int, seconds: float) -> list[Utterance]:
    """`n` utterances, spread evenly over the data, of each its beginning."""
    audio = load_audio(data, split, SAMPLE_RATE)
    if not 1 <= n <= len(audio):
        raise UserError(f"--n is from 1 to {len(audio)}, as many utterances as there are.")
    if not seconds * SAMPLE_RATE >= 1:
        raise UserError(f"--seconds is above 0, not {seconds:g}.")
    return [
        Utterance(
            audio.names[i],
            audio.speaker_names[int(audio.speakers[i])],
            audio.waves[i][: round(seconds * SAMPLE_RATE)],
        )
        for i in (n_th * len(audio) // n for n_th in range(n))
    ]


def write_sounds(folder: Path, sounds: Sequence[tuple[str, Tensor]]) -> None:
    """Each wave, float [T], as FOLDER/LABEL.wav, and all spectra in FOLDER/spectrograms.png, from top to bottom."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, wave in sounds:
        write_wav(folder / f"{label}.wav", wave, SAMPLE_RATE)
    write_png(folder / "spectrograms.png", strips([(label, spectrogram(wave)[None]) for label, wave in sounds]))


def file_name(utterance: Utterance) -> str:
    """The utterance's name as that of a file: SPEAKER/CHAPTER/1.flac is SPEAKER-CHAPTER-1."""
    return utterance.name.rsplit(".", 1)[0].replace("/", "-")

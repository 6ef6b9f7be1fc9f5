"""`worldmodel audio-convert`: speech -> the same words in another voice (§4.3)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_folder
from scripts.utterances import check_drawing, choose, speaking, write_sounds
from worldmodel.audio_data import Split
from worldmodel.audio_model import AudioModel
from worldmodel.errors import UserError


@dataclass
class Args:
    """Say utterances again from their codes, in the voice of another speaker."""

    model: str
    """A bundled name, a folder made by `worldmodel train-audio`, or a Hub id."""
    data: str
    """Speech of anyone, in any layout that `worldmodel train-audio` reads."""
    speaker: tuple[str, ...]
    """In whose voices: names that the model knows."""
    out: Path = Path("runs/audio-conversions")
    """Folder for the given and the converted as wav files, and their spectrograms."""
    split: Split = "test"
    """Of the data; the decoder has never heard "new-speakers"."""
    n: int = 2
    """How many utterances, spread evenly over the data."""
    seconds: float = 4.0
    """Take at most so much of each."""
    temperature: float = 1.0
    """Below 1 the voice is less hoarse."""
    seed: int = 0
    device: Device = FASTEST


def main(args: Args) -> None:
    check_device(args.device)
    check_drawing(args.seconds, args.seed, args.temperature)
    if not args.speaker or len(set(args.speaker)) < len(args.speaker):
        raise UserError("--speaker names one voice or more, each once.")
    model = AudioModel.from_pretrained(args.model, device=args.device)
    voices = [model.speaker(name) for name in args.speaker]
    utterances = choose(args.data, args.split, args.n, args.seconds)
    waves = [utterance.wave for utterance in utterances for _ in voices]
    speakers = torch.tensor(voices * len(utterances))
    room_for_folder(args.out)
    spoken = iter(model.convert(waves, speakers, seed=args.seed, temperature=args.temperature, progress=speaking))
    sounds = []
    for utterance in utterances:
        sounds.append((f"{utterance.name}-given", utterance.wave))
        sounds += [(f"{utterance.name}-as-{voice}", next(spoken)) for voice in args.speaker]
    write_sounds(args.out, sounds)
    print(f"{args.out}: {len(utterances)} utterances, given and as {', '.join(args.speaker)}, and spectrograms.png.")

"""`worldmodel audio-reconstruct`: speech -> what a model's codes keep of it, spoken by its decoder (§4.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_folder
from scripts.utterances import check_drawing, choose, speaking, write_sounds
from worldmodel.audio_model import AudioModel


@dataclass
class Args:
    """Say utterances again from their codes, in the voice of whoever said them."""

    model: str
    """A bundled name, a folder made by `worldmodel train-audio`, or a Hub id."""
    data: str
    """Speech of the speakers that the model knows, in any layout that `worldmodel train-audio` reads."""
    out: Path = Path("runs/audio-reconstructions")
    """Folder for the given and the reconstructed as wav files, and their spectrograms."""
    split: Literal["train", "test"] = "test"
    n: int = 4
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
    model = AudioModel.from_pretrained(args.model, device=args.device)
    utterances = choose(args.data, args.split, args.n, args.seconds)
    speakers = torch.tensor([model.speaker(utterance.speaker) for utterance in utterances])
    waves = [utterance.wave for utterance in utterances]
    room_for_folder(args.out)
    spoken = model.convert(waves, speakers, seed=args.seed, temperature=args.temperature, progress=speaking)
    sounds = []
    for utterance, again in zip(utterances, spoken, strict=True):
        sounds += [(f"{utterance.name}-given", utterance.wave), (f"{utterance.name}-reconstructed", again)]
    write_sounds(args.out, sounds)
    print(f"{args.out}: {len(utterances)} utterances, given and reconstructed, and spectrograms.png.")

"""`worldmodel audio-sample`: a model of speech -> new speech, its codes drawn by the prior (§4.3)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_folder
from scripts.utterances import check_drawing, speaking, write_sounds
from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_model import AudioModel


@dataclass
class Args:
    """Draw new speech: codes from a model's prior, then a voice for them."""

    model: str
    """A bundled name, a folder made by `worldmodel train-audio`, or a Hub id."""
    out: Path = Path("runs/audio-samples")
    """Folder for the wav files, and their spectrograms."""
    speaker: tuple[str, ...] = ()
    """In whose voices, one sample each; in those of the first four speakers if not given."""
    seconds: float = 2.56
    """Of each sample, to the nearest whole latent; the paper's 40,960 samples by default."""
    temperature: float = 1.0
    """Below 1 speech keeps to what is likely."""
    seed: int = 0
    device: Device = FASTEST


def main(args: Args) -> None:
    check_device(args.device)
    check_drawing(args.seconds, args.seed, args.temperature)
    model = AudioModel.from_pretrained(args.model, device=args.device)
    names = args.speaker or model.config.speakers[:4]
    speakers = torch.tensor([model.speaker(name) for name in names])
    codes = max(round(args.seconds * SAMPLE_RATE / model.config.audio.stride), 1)
    room_for_folder(args.out)
    spoken = model.sample(codes, speakers, seed=args.seed, temperature=args.temperature, progress=speaking)
    write_sounds(args.out, [(f"as-{name}", wave) for name, wave in zip(names, spoken, strict=True)])
    print(f"{args.out}: new speech as {', '.join(names)}, and spectrograms.png.")

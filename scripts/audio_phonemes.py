"""`worldmodel audio-phonemes`: which phoneme each code stands for, and how often that is right (§4.3)."""

import json
from dataclasses import dataclass
from pathlib import Path

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_file
from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import load_audio
from worldmodel.audio_model import AudioModel
from worldmodel.files import write_text
from worldmodel.phonemes import evaluate_phonemes, phonemes_of_codes

WAYS = {"codes": "the model's codes", "mfcc_k_means": "k-means of MFCCs", "most_frequent": "the most frequent phoneme"}
SPLITS = {"test": "known speakers", "new-speakers": "new speakers"}


@dataclass
class Args:
    """Map each code to the phoneme that it most often coincides with, and try the map on held-out utterances."""

    model: str
    """A bundled name, a folder made by `worldmodel train-audio`, or a Hub id."""
    data: str
    """The recordings that it was trained on, with a manifest.json that says which phoneme is said when."""
    out: Path = Path("runs/audio-phonemes.json")
    """Where the accuracies and the map go."""
    device: Device = FASTEST


def main(args: Args) -> None:
    check_device(args.device)
    model = AudioModel.from_pretrained(args.model, device=args.device)
    room_for_file(args.out)
    training, *others = (load_audio(args.data, split, SAMPLE_RATE) for split in ("train", "test", "new-speakers"))
    model.check_speakers(training)
    accuracy = evaluate_phonemes(model.vqvae, training, dict(zip(SPLITS, others, strict=True)))
    phonemes = phonemes_of_codes(model.vqvae, training)
    write_text(args.out, json.dumps({"accuracy": accuracy, "phonemes": phonemes}, indent=2) + "\n")
    print("Phonemes told (and without silence):")
    for way, title in WAYS.items():
        told = [
            f"{percent(shares['all'])} ({percent(shares['speech'])}) of {SPLITS[split]}"
            for split, shares in accuracy[way].items()
        ]
        print(f"  {title}: {', '.join(told)}")
    print(f"{args.out}: these figures, and what each of the {len(phonemes)} codes stands for.")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"

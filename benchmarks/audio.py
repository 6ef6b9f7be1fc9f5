"""What models of speech keep, and what their codes mean: the measurable part of §4.3.

    python benchmarks/audio.py --data DATA/speech --models runs/64x/model runs/128x/model runs/25hz/model

Writes the figures to OUT (benchmarks/audio.json) and prints the table; all are of utterances that no model has heard.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import load_audio
from worldmodel.audio_evaluation import evaluate_audio
from worldmodel.audio_model import AudioModel
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.folders import model_name


@dataclass
class Args:
    data: str
    """Recordings with a manifest.json, as phonemes have to be known."""
    models: tuple[str, ...]
    """Folders made by `worldmodel train-audio`."""
    out: Path = Path("benchmarks/audio.json")
    seconds: float = 4.0
    """Of each utterance that is drawn again."""
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"


def main(args: Args) -> None:
    training, test = (load_audio(args.data, split, SAMPLE_RATE) for split in ("train", "test"))
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.models:
        model = AudioModel.from_pretrained(name).to(args.device)
        result[model_name(name)] = evaluate_audio(model, test, training)
        write_text(args.out, json.dumps(result, indent=2) + "\n")
    print(table(result))


def table(result: dict[str, Any]) -> str:
    lines = [
        "| model | bits a sample: true latents | shuffled | none | bits a code: prior | unigram | perplexity |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, r in result.items():
        sample, code = r["bits_per_sample"], r["bits_per_code"]
        lines.append(
            f"| {name} | {sample['true']:.3f} | {sample['shuffled']:.3f} | {sample['none']:.3f} "
            f"| {code['prior']:.2f} | {code['unigram']:.2f} | {r['perplexity']:.0f} of {r['codes']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except UserError as error:
        raise SystemExit(str(error)) from error

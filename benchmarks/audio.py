"""What models of speech keep, and what their codes mean: the measurable part of §4.3.

    python benchmarks/audio.py --data DATA/speech --models runs/64x/model runs/128x/model runs/25hz/model

Writes the figures to OUT (benchmarks/audio.json) and prints the table; all are of utterances that no model has heard.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scripts.audio_phonemes import percent
from scripts.command import run_script
from scripts.device import FASTEST, Device
from scripts.output import read_record, room_for_file
from worldmodel.audio import SAMPLE_RATE, AudioVQVAE
from worldmodel.audio_data import Split, load_audio
from worldmodel.audio_evaluation import evaluate_audio, evaluate_spoken
from worldmodel.audio_model import AudioModel
from worldmodel.files import write_text
from worldmodel.folders import model_names
from worldmodel.phonemes import evaluate_phonemes

SPLITS: tuple[Split, ...] = ("train", "test", "new-speakers")


@dataclass
class Args:
    data: str
    """Recordings with a manifest.json, as phonemes have to be known."""
    models: tuple[str, ...]
    """Folders made by `worldmodel train-audio`."""
    out: Path = Path("benchmarks/audio.json")
    device: Device = FASTEST


def main(args: Args) -> None:
    names = model_names(args.models)
    room_for_file(args.out)
    result: dict[str, Any] = read_record(args.out, {})
    training, test, new = (load_audio(args.data, split, SAMPLE_RATE) for split in SPLITS)
    for name, address in zip(names, args.models, strict=True):
        model = AudioModel.from_pretrained(address, device=args.device)
        result[name] = {
            **evaluate_audio(model, test, training),
            "phonemes": evaluate_phonemes(model.vqvae, training, {"test": test, "new-speakers": new}),
            **evaluate_spoken(model, test, training),
            "seconds_for_one_of_speech": drawing(model.vqvae),
        }
        write_text(args.out, json.dumps(result, indent=2) + "\n")
    for table in (likelihoods, phonemes, spoken, speeds):
        print(table(result), end="\n\n")


@torch.no_grad()
def drawing(vqvae: AudioVQVAE) -> dict[str, float]:
    """Seconds that it takes to draw one of speech, alone.

    "cached": with what is kept of the past. "naive": by a pass over all of it for each sample; eight of them are timed.
    """
    device = vqvae.device
    codes = torch.zeros(1, -(-SAMPLE_RATE // vqvae.config.stride), dtype=torch.int64, device=device)
    speakers, vectors = torch.zeros(1, dtype=torch.int64, device=device), vqvae.quantizer.lookup(codes)
    uniforms = torch.rand(1, SAMPLE_RATE, device=device)
    vqvae.decode(codes[:, :1], speakers, uniforms[:, :1])  # what is made once, is made
    begin = _now(device)
    vqvae.decode(codes, speakers, uniforms)
    cached = _now(device) - begin
    passes = 0.0
    for part in range(8):
        past = torch.zeros(1, (2 * part + 1) * SAMPLE_RATE // 16, dtype=torch.int64, device=device)
        begin = _now(device)
        vqvae.nats(past, vectors, speakers)
        passes += _now(device) - begin
    return {"cached": cached, "naive": passes / 8 * SAMPLE_RATE}


def _now(device: torch.device) -> float:
    """Seconds, once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def likelihoods(result: dict[str, Any]) -> str:
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


def phonemes(result: dict[str, Any]) -> str:
    lines = [
        "| phonemes told, all (speech alone) | known speakers | new speakers |",
        "|---|---|---|",
    ]
    for name, r in result.items():
        for way, shares in r["phonemes"].items():
            told = [f"{percent(shares[s]['all'])} ({percent(shares[s]['speech'])})" for s in SPLITS[1:]]
            lines.append(f"| {name}, {way.replace('_', ' ')} | {told[0]} | {told[1]} |")
    return "\n".join(lines)


def spoken(result: dict[str, Any]) -> str:
    lines = [
        "| said again | mel-cepstral distance, dB | same codes | same phonemes | its speaker | the old one |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in result.items():
        speaker = r["speaker"]
        told = {
            "reconstructed": (speaker["reconstructed"], None),
            "converted": (speaker["converted"], speaker["unconverted"]),
        }
        for part, distance in r["mel_cepstral_distance"].items():
            to, old = told.get(part, (None, None))
            lines.append(
                f"| {name}, {part} | {distance:.2f} | {r['same_codes'][part]:.1%} | {r['same_phonemes'][part]:.1%} "
                f"| {'' if to is None else f'{to:.1%}'} | {'' if old is None else f'{old:.1%}'} |"
            )
    return "\n".join(lines)


def speeds(result: dict[str, Any]) -> str:
    lines = ["| a second of speech | seconds, cached | naive | ratio |", "|---|---|---|---|"]
    for name, r in result.items():
        cached, naive = (r["seconds_for_one_of_speech"][way] for way in ("cached", "naive"))
        lines.append(f"| {name} | {cached:.2f} | {naive:,.0f} | {naive / cached:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, Args)

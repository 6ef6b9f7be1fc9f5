"""`worldmodel train-audio`: speech -> an audio VQ-VAE and the prior over its codes."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from scripts.command import command_line
from scripts.device import FASTEST, Device, check_device
from scripts.output import apart_from
from scripts.settings import write_settings
from scripts.unused import refuse_unused
from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import Audio, load_audio
from worldmodel.audio_model import AudioModel
from worldmodel.audio_recipe import AudioRecipe, check_trainable, learn_audio
from worldmodel.digest import weights_digest
from worldmodel.folders import check_room
from worldmodel.progress import track


@dataclass
class Args:
    """Train a model of speech: the VQ-VAE, then the prior over its codes.

    Run the same command again to go on after an interruption: each part resumes from its last checkpoint.
    """

    data: Annotated[str, tyro.conf.Positional]
    """Speech to learn from: VCTK, a subset of LibriSpeech, a folder of recordings a speaker, or recordings with a
    manifest.json."""
    out: Path
    """Folder for checkpoints, TensorBoard logs and, at the end, the model itself (OUT/model)."""
    init: str | None = None
    """Start from the weights of this model (a bundled name, a folder, a Hub id) instead of from random ones. With
    --steps 0 its VQ-VAE stays as it is; with --settle-steps it settles or, if it has, its decoder goes on."""
    device: Device = FASTEST
    recipe: Annotated[AudioRecipe, tyro.conf.arg(name="")] = field(default_factory=AudioRecipe)


def main(args: Args) -> None:
    check_device(args.device)
    apart_from(args.data, args.out)
    if not (args.recipe.steps or args.recipe.settle_steps):
        refuse_unused(args.recipe, "batch", "lr", "heard", "spoken", where="with --steps 0 and no --settle-steps")
    start = None if args.init is None else AudioModel.from_pretrained(args.init, device=args.device)
    audio = load_audio(args.data, "train", SAMPLE_RATE, progress=lambda reading: track(reading, "Reading"))
    check_trainable(audio, args.recipe, start)
    check_room(args.out / "model")
    learned_from = {
        "utterances": len(audio),
        "speakers": audio.speaker_names,
        "init_weights": weights_digest(start),
    }
    write_settings(args.out, {"data": args.data, "init": args.init, **learned_from, **dataclasses.asdict(args.recipe)})
    model = learn_audio(audio, args.recipe, args.out, args.device, start=start)
    model.save_pretrained(args.out / "model", card=_card(args, audio, model))
    print(f"The model is in {args.out / 'model'}: try `worldmodel audio-sample --model {args.out / 'model'}`.")


def _card(args: Args, audio: Audio, model: AudioModel) -> str:
    """The model card: what the model has heard, and the command that made it."""
    config = model.config.audio
    minutes = sum(len(wave) for wave in audio.waves) / SAMPLE_RATE / 60
    return f"""# A model of speech

Learned from {minutes:.3g} minutes of {len(audio.speaker_names)} speakers with

    {command_line("train-audio", args)}

- Codes: {SAMPLE_RATE / config.stride:g} a second, of {config.num_codes}.
- Speakers: {", ".join(audio.speaker_names)}.

Hear it: `worldmodel audio-sample --model FOLDER`.
"""

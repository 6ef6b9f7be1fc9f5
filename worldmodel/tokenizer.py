"""Tokenizers as folders: a video VQ-VAE by itself, for priors that are yet to come, or that of a world model."""

from pathlib import Path

import torch

from worldmodel.folders import check_place, find_model, kind_of, read_config, read_model, with_tuples, write_model
from worldmodel.video import VideoConfig, VideoVQVAE
from worldmodel.world import WorldModel, fast_layout


def save_tokenizer(video: VideoVQVAE, folder: str | Path, *, card: str) -> None:
    """Write `config.json`, `model.safetensors` (bfloat16), and `card` as `README.md`.

    A model that is there already is replaced as a whole; raises `UserError` where something else is.
    """
    write_model(folder, "tokenizer", video, video.config, card)


def load_tokenizer(name: str | Path, *, device: torch.device | str = "cpu") -> VideoVQVAE:
    """That of a world model, or one that `save_tokenizer` wrote; `name` as in `WorldModel.from_pretrained`.

    Raises `UserError` when there is no such model or device, or its files are damaged.
    """
    check_place(device)
    folder = find_model(name, "world")
    if kind_of(folder) == "world":
        return WorldModel.from_pretrained(folder, device=device).video
    config = read_config(folder, "tokenizer", lambda raw: VideoConfig(**with_tuples(raw)))
    return fast_layout(read_model(folder, lambda: VideoVQVAE(config)).to(device))

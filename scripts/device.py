"""`--device`: where a command computes."""

from typing import Literal

import torch

from worldmodel.errors import UserError

Device = Literal["cpu", "cuda"]
FASTEST: Device = "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: Device) -> None:
    """Raise `UserError` unless it is here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here: take --device cpu.")

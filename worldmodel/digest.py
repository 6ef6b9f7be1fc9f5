"""A short name for the content of tensors, to tell by whether two are the same."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def digest(tensors: Iterable[Tensor]) -> str:
    """Sixteen hexadecimal digits; of the values in their order, whatever the shapes and the device."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def weights_digest(module: nn.Module | None) -> str | None:
    """That of all that a module keeps, the same in any precision that holds its weights; None of none."""
    if module is None:
        return None
    return digest(value.float() if value.is_floating_point() else value for value in module.state_dict().values())

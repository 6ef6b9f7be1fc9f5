"""What a user gave, in a few words, for the sentence that refuses it."""

from torch import Tensor


def described(value: object) -> str:
    """The type and shape of a tensor, "float32 [2, 3]", or the type of what is none."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"

"""A second device for machines that have none: what is computed on it must have been brought there, and back.

Tensors on it say that they are on `meta`, are computed on the CPU, and refuse to be mixed with those that are not
there or to be read by NumPy, as those on a GPU do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = "meta"
MAY_MIX = ("aten._to_copy", "aten.copy_", "aten.index")  # moves; and a GPU takes indices from the CPU


class _Elsewhere(Tensor):
    """A tensor on the pretended device, and the one on the CPU that it really is."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "_Elsewhere":
        like = {"strides": held.stride(), "dtype": held.dtype, "device": ELSEWHERE}
        wrapper = Tensor._make_wrapper_subclass(cls, held.shape, storage_offset=held.storage_offset(), **like)
        wrapper.held = held
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = any(isinstance(tensor, cls) for tensor in tensors)
        strays = [tensor for tensor in tensors if not isinstance(tensor, cls) and tensor.ndim]
        if here and strays and not str(func).startswith(MAY_MIX):
            raise RuntimeError(f"Expected all tensors of {func} to be on one device.")
        device = kwargs.get("device")
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if str(func).startswith("aten.copy_"):
            return args[0]
        stays = here if device is None else torch.device(device).type == ELSEWHERE
        return tree_map(lambda x: cls(x) if isinstance(x, Tensor) else x, result) if stays else result

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("A tensor elsewhere is not NumPy's to read: bring it here first.")
        return self.held.numpy(force=True)

    # What torch asks a tensor on `meta` for in vain.

    def tolist(self) -> Any:
        return self.held.tolist()

    def item(self) -> Any:
        return self.held.item()

    def __bool__(self) -> bool:
        return bool(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __float__(self) -> float:
        return float(self.held)


def _held(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, _Elsewhere) else value


class _Pretence(TorchDispatchMode):
    """Brings to the pretended device what is made there or moved there, and leaves the rest alone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = (kwargs or {}).get("device")
        there = device is not None and torch.device(device).type == ELSEWHERE
        if there or any(isinstance(leaf, _Elsewhere) for leaf in tree_leaves((args, kwargs))):
            return _Elsewhere.__torch_dispatch__(func, types, args, kwargs)
        return func(*args, **(kwargs or {}))


@contextmanager
def a_second_device() -> Iterator[str]:
    """Within it there is one; its name."""
    make, autocast = torch.tensor, torch.autocast

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        return make(*args, **kwargs).to(device)

    def autocast_here(_: str, *args: Any, **kwargs: Any) -> torch.autocast:
        return autocast("cpu", *args, **kwargs)

    # A module's parameters become tensors of another class on the way there.
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with patch.object(torch, "tensor", tensor), patch.object(torch, "autocast", autocast_here), _Pretence():
        yield ELSEWHERE
    torch.__future__.set_overwrite_module_params_on_conversion(before)

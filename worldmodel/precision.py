"""In which precision a device multiplies matrices fastest."""

import torch

UNITS = ("amx_bf16", "avx512_bf16")  # a CPU without either emulates bfloat16, 2 to 25 times slower than float32


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16; but float32 on a CPU without instructions that multiply in it."""
    if torch.device(device).type == "cpu" and not any(map(torch.cpu.get_capabilities().get, UNITS)):
        return torch.float32
    return torch.bfloat16

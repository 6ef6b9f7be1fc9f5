"""In which precision a device multiplies matrices fastest."""

import torch


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16; but float32 on a CPU without matrix units for bfloat16, where that would be 2 to 25 times slower."""
    has_units = torch.device(device).type != "cpu" or torch.cpu.get_capabilities().get("amx_bf16", False)
    return torch.bfloat16 if has_units else torch.float32

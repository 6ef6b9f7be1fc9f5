"""In which precision a device multiplies matrices fastest."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32; on a CPU without matrix units for it, it is 2 to 25 times slower."""
    return device.type != "cpu" or torch.cpu.get_capabilities().get("amx_bf16", False)

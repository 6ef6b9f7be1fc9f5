"""How the C library hands memory to tensors."""

import torch


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 64 MB, for the next tensors.

    As it starts, each tensor above 128 kB is memory that the system maps anew and zeroes page by page, which costs more
    than many an operation on it. glibc raises that bound to the largest block that was mapped and freed; 32 MiB is as
    far as it goes. The pages of this block are never touched, so it costs nothing. Elsewhere it does nothing.
    """
    torch.empty(32 * 2**20 - 2**16, dtype=torch.uint8)

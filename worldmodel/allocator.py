"""How the C library hands memory to tensors."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
KEPT = 2**31 - 1  # bytes


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 2 GiB at the end of its heap, for the next tensors.

    As it starts, a large tensor is memory that the system maps anew and zeroes page by page, which costs more than many
    an operation on it. Where there is no glibc, it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, KEPT)

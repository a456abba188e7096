"""Makes the C library's allocator keep freed memory, which speeds up training on a CPU."""

import ctypes
import sys

# from <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Makes glibc reuse large freed blocks instead of returning them to the kernel. Returns whether that is possible.

    PyTorch frees every activation after each training step. By default, glibc returns blocks over 32 MiB to the kernel
    at once, and the next step has 880,000 page faults (batch size 8, 512 tokens, 6 layers, 2 cores). Without them, a
    step takes 5.3 s instead of 7.3 s. In return, the process keeps the memory until it ends.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has no mallopt
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))

"""The memory that PyTorch's tensors on the CPU come from (level 0)."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
_MADV_HUGEPAGE = 14
_PAGE = 1 << 21
_SIZE = 1 << 28


@cache
def settle() -> None:
    """Keep what tensors leave, and in huge pages, for the rest of the process; only glibc can.

    An update frees as much as it allocates, some MB a tensor, and reads and writes all weights and moments. By default
    glibc returns such blocks to the system and gets them back as new pages of 4 KiB, hundreds of page faults an
    update; and tables of small pages are slower to walk. With neither, five seeds of IQL train an eighth faster.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
    libc.mallopt(_MMAP_THRESHOLD, 2 * _SIZE)
    # the heap grows by so much, not a page of which is there before it is used
    block = libc.malloc(_SIZE)
    if block:
        libc.free(block)
        begin = -(-block // _PAGE) * _PAGE
        libc.madvise(begin, (block + _SIZE - begin) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    # what is larger, such as a replay buffer, is the system's to clear and to take back
    libc.mallopt(_MMAP_THRESHOLD, 1 << 25)

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

    An update frees as much as it allocates, up to some ten MB a tensor, and reads and writes all weights and moments.
    By default glibc may return such blocks to the system and get them back as new pages of 4 KiB, a page fault each;
    whether it does depends on what the program freed before. With three seeds CQL's update took 117 ms with 18,000
    faults where it did, and 71 without; five seeds of IQL 28 and 24; where glibc had learned to keep the memory already
    there is nothing to gain.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if not libc.mallopt(_MMAP_THRESHOLD, 2 * _SIZE):
        return  # an older glibc takes 32 MiB at most; any setting would keep it from learning by itself
    libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
    # the heap grows by so much, not a page of which is there before it is used
    block = libc.malloc(_SIZE)
    if block:
        libc.free(block)
        begin = -(-block // _PAGE) * _PAGE
        libc.madvise(begin, (block + _SIZE - begin) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    # what is larger, such as a large replay buffer, is the system's to clear and to take back
    libc.mallopt(_MMAP_THRESHOLD, _SIZE)

"""Memory that tensors leave is there for the next ones."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from toolkit import heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_tensors_take_the_place_of_those_before_them() -> None:
    heap.settle()
    faults = []
    for _ in range(10):
        several = [torch.ones(1 << 20) for _ in range(4)]  # 16 MiB, 4096 small pages
        del several
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert faults[-1] - faults[0] < 1000

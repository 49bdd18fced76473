"""Memory that tensors leave is there for the next ones."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# in a process of its own: what others left in a heap decides where the next tensors lie
SCRIPT = """
import resource
import torch
from toolkit import heap
heap.settle()
faults = []
for _ in range(10):
    several = [torch.ones(1 << 20) for _ in range(4)]  # 16 MiB, 4096 small pages
    del several
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_tensors_take_the_place_of_those_before_them() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1000

"""Compiled kernels are kept between processes, and nothing that happens to them there can do harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import numpy as np
from toolkit.data.random import fill_noise
out = np.zeros((1, 1, 3, 2), np.float32)
fill_noise(out, 0, np.array([1]), 2)
print(sum(fill_noise.stats.cache_hits.values()), out.tobytes().hex())
"""


def start(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate()
    assert process.returncode == 0
    hits, numbers = output.split()
    return int(hits), numbers


def test_two_that_start_together_then_a_hit_then_every_kind_of_damage(tmp_path: Path) -> None:
    together = [start(tmp_path) for _ in range(2)]
    (_, numbers), (_, same) = map(finish, together)
    assert numbers == same
    assert finish(start(tmp_path)) == (1, numbers)
    folder = next((tmp_path / "offline2online-toolkit").iterdir())
    assert folder.stat().st_mode & 0o077 == 0, "others may not write what is executed here"
    for suffix, damage in ((".nbc", b""), (".nbi", b"\x80garbage")):
        kept = [file for file in folder.rglob("*") if file.suffix == suffix]
        assert kept
        for file in kept:
            file.write_bytes(damage)
        assert finish(start(tmp_path)) == (0, numbers)
        assert finish(start(tmp_path)) == (1, numbers), "what could not be read was not written anew"


def test_a_folder_that_cannot_be_made_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert finish(start(tmp_path / "file"))[0] == 0

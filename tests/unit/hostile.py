"""What files made to do harm hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Edit = Callable[[h5py.File], None]


class Bomb:
    """Unpickled, it makes the folder `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def instead(name: str, **arguments: Any) -> Edit:
    """Another data set under a name."""

    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **arguments)

    return edit


def external_link(name: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = h5py.ExternalLink("/etc/hostname", "/x")

    return edit


def virtual(name: str) -> Edit:
    """Three numbers that lie in another file."""

    def edit(file: h5py.File) -> None:
        del file[name]
        layout = h5py.VirtualLayout((3,), np.float64)
        layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3,))
        file.create_virtual_dataset(name, layout)

    return edit

"""The process that loads a Stable-Baselines3 replay buffer, which may run any code, and leaves plain arrays.

    python -m toolkit.data.importers.unpickle BUFFER.pkl OUT.npz

What it leaves is read back without trust.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np

_STORED = ("actions", "rewards", "dones", "timeouts")


def main(source: str, target: str) -> None:
    """Load `source`, write its arrays to `target`."""
    with open(source, "rb") as file:
        buffer: Any = pickle.load(file)
    arrays = {name: np.asarray(getattr(buffer, name)) for name in _STORED if hasattr(buffer, name)}
    for name in ("observations", "next_observations"):
        stored = getattr(buffer, name, None)
        if isinstance(stored, dict):
            arrays |= {f"{name}.{key}": np.asarray(rows) for key, rows in stored.items()}
        elif stored is not None:
            arrays[name] = np.asarray(stored)
    arrays["pos"], arrays["full"] = np.array([int(buffer.pos)]), np.array([bool(buffer.full)])
    if hasattr(buffer.action_space, "n"):
        arrays["choices"] = np.array([int(buffer.action_space.n)])
    numbers: dict[str, Any] = {name: rows for name, rows in arrays.items() if rows.dtype.kind in "fiub"}
    np.savez(target, **numbers)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Plain .npz files of anybody's making.

N steps one below the other: `observations` (N, D), `actions` (N, A), `rewards` (N,), `terminals` (N,) and, where they
are known, `timeouts` (N,), `next_observations` (N, D) and `goals` (N, G), the first G numbers of an observation being
what is achieved. `terminated` and `truncated` are other words for `terminals` and `timeouts`. An episode's steps are
together, in order. Without `next_observations` the last step of an episode that is not terminal is dropped; without
`timeouts` episodes are told apart by jumps.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.data.imported import Imported
from toolkit.data.importers.d4rl import from_flat
from toolkit.data.importers.options import Options
from toolkit.data.untrusted_npz import read_npz
from toolkit.types import ToolkitError

_OTHER_WORDS = {"terminated": "terminals", "truncated": "timeouts", "goals": "goal"}
_WANTED = ("observations", "actions", "rewards", "terminals")
_READ = (*_WANTED, "timeouts", "next_observations", "goal")


def read(path: Path, options: Options) -> Imported:
    """The episodes of a plain .npz. Raises ToolkitError."""
    arrays = {_OTHER_WORDS.get(name, name): rows for name, rows in read_npz(path).items()}
    missing = [name for name in _WANTED if name not in arrays]
    if missing:
        raise ToolkitError(f"{path}: expected {', '.join(_WANTED)}, found no {missing[0]!r}")
    return from_flat(path, "npz", {name: rows for name, rows in arrays.items() if name in _READ}, options)

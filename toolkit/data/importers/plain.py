"""Plain .npz files of anybody's making.

N steps one below the other: `observations` (N, D), `actions` (N, A), `rewards` (N,), `terminals` (N,) and, where they
are known, `timeouts` (N,), `next_observations` (N, D) and `goals` (N, G), what is achieved being the first G numbers of
an observation or those that `Options.achieved` names. `terminated` and `truncated` are other words for `terminals` and
`timeouts`. Actions lie in `Options.bounds`, if there are no `action_low` and `action_high` (A,). An episode's steps are
together, in order. Without `next_observations` the last step of an episode that is not terminal is dropped; without
`timeouts` episodes are told apart by jumps.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toolkit.config import nearest
from toolkit.data.imported import Imported
from toolkit.data.importers.d4rl import from_flat
from toolkit.data.importers.options import BOUNDS, Options
from toolkit.data.untrusted_npz import read_npz
from toolkit.types import ToolkitError

_OTHER_WORDS = {"terminated": "terminals", "truncated": "timeouts", "goals": "goal"}
_WANTED = ("observations", "actions", "rewards", "terminals")
_READ = (*_WANTED, "timeouts", "next_observations", "goal", *BOUNDS)


def read(path: Path, options: Options) -> Imported:
    """The episodes of a plain .npz. Raises ToolkitError."""
    found = read_npz(path)
    if twice := [f"{one} and {other}" for one, other in _OTHER_WORDS.items() if one in found and other in found]:
        raise ToolkitError(f"{path}: {twice[0]} are two words for one array; expected one of them")
    arrays = {_OTHER_WORDS.get(name, name): rows for name, rows in found.items()}
    if missing := [name for name in _WANTED if name not in arrays]:
        log = {"qpos", "qvel", "ctrl"} <= set(arrays)
        hint = "; `toolkit data relabel` plays a log of MuJoCo's states" if log else nearest(missing[0], found)
        wanted, there = ", ".join(_WANTED), ", ".join(sorted(found)) or "none"
        raise ToolkitError(f"{path}: expected arrays {wanted}, found no {missing[0]!r}{hint}; the file has {there}")
    imported = from_flat(path, "npz", {name: rows for name, rows in arrays.items() if name in _READ}, options)
    if not (rest := sorted(set(arrays) - set(_READ))):
        return imported
    words = {*_READ, *_OTHER_WORDS} - set(found)
    note = ", ".join(f"{name}{nearest(name, words)}" for name in rest)
    return replace(imported, source=replace(imported.source, notes=(*imported.source.notes, f"not read: {note}")))

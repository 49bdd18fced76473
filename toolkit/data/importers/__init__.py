"""Recorded data of other projects as episodes: one module a format, found by what a file holds, not by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from toolkit.config import one_of
from toolkit.data import untrusted_npz
from toolkit.data.imported import Imported
from toolkit.data.importers import d4rl, lerobot, ogbench, plain, robomimic, sb3
from toolkit.data.importers.options import Options, goals
from toolkit.data.minari import import_minari
from toolkit.data.untrusted_hdf5 import UntrustedFile
from toolkit.types import ToolkitError

# arrays, or what others call them, by which a log is none of OGBench's
_NOT_OGBENCH = {
    "rewards",
    "reward",
    "terminated",
    "truncated",
    "timeouts",
    "timeout",
    "dones",
    "goals",
    "next_observations",
    "next_obs",
}

_BOUNDED = {"minari", "sb3"}  # what holds the space that its actions are from

FORMATS: dict[str, Callable[[Path, Options], Imported]] = {
    "minari": lambda path, options: import_minari(path),
    "d4rl": d4rl.read,
    "ogbench": ogbench.read,
    "robomimic": robomimic.read,
    "lerobot": lerobot.read,
    "sb3": sb3.read,
    "npz": plain.read,
}


def read_data(path: Path, format: str | None = None, options: Options | None = None) -> Imported:
    """Any readable data set as its file has it; `format` overrides what its content says. Raises ToolkitError."""
    if format is not None and format not in FORMATS:
        raise ToolkitError(f"--format: {one_of(FORMATS, format)}")
    if not path.exists():
        raise ToolkitError(f"{path}: expected a data set, found nothing; see `toolkit data list ROOT`")
    options, format = options or Options(), format or detect(path)
    if options.said and format in _BOUNDED:
        raise ToolkitError(f"{path}: --action-bounds: expected none, a recording of format {format} has its own")
    if options.part is not None and format != "robomimic":
        raise ToolkitError(f"{path}: --filter: expected a robomimic file, got one of format {format}")
    found = FORMATS[format](path, options)
    if not len(found.episodes):
        lost = "; ".join(f"left out: {entry.number} {entry.what}, {entry.why}" for entry in found.source.dropped)
        raise ToolkitError(f"{path}: expected at least one episode with a transition, got none ({lost})")
    return goals(found, options.achieved)


def detect(path: Path) -> str:
    """The format of a folder or file, by its content. Raises ToolkitError where it is none of ours."""
    if path.is_dir():
        marks = {"data/metadata.json": "minari", "data/main_data.hdf5": "minari", "meta/info.json": "lerobot"}
        for mark, name in marks.items():
            if (path / mark).exists():
                return name
        raise ToolkitError(f"{path}: expected a Minari folder (data/main_data.hdf5) or a LeRobot one (meta/info.json)")
    if not path.is_file():
        raise ToolkitError(f"{path}: expected a plain file or a folder")
    with path.open("rb") as file:
        begin = file.read(8)
    if begin == b"\x89HDF\r\n\x1a\n":
        with UntrustedFile(path) as opened:
            keys = opened.keys(opened.root, ".") or []
            if "data" in keys and opened.keys(opened.root, "data") is not None:
                return "robomimic"
        return "d4rl"
    if begin.startswith(b"PK"):
        names = set(untrusted_npz.names(path))
        return "ogbench" if "terminals" in names and not names & _NOT_OGBENCH else "npz"
    if begin.startswith(b"\x80"):
        return "sb3"
    raise ToolkitError(
        f"{path}: expected HDF5 (D4RL, robomimic), .npz (OGBench, plain) or a replay buffer's .pkl, got something else"
    )

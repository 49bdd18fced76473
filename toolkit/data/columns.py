"""A recording as plain columns on disk, made once and mapped into memory, to be read a part at a time (level 1).

A folder of the numbers of all episodes back to back, one file for each column, and `manifest.json`: the widths, the
hash of the file they were made from, where that came from and what was wrong with it. What is seen and done is stored
in float32, or in float16 in half the space; the rest keeps its type.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.data.finding import Finding
from toolkit.data.imported import Dropped, Imported, Source, joined
from toolkit.data.minari import MAIN_FILE, PART, minari_parts, read_metadata
from toolkit.files import sha256, sync
from toolkit.types import Array, Episodes, IntArray, Json, ToolkitError

Stored = Literal["float32", "float16"]

LAYOUT = 1
_WIDE = ("obs", "achieved", "desired", "action")  # (R, width)
_NARROW = {"reward": "float32", "terminated": "bool", "truncated": "bool"}  # (R,)
_PLACES = ("starts", "numbers")  # (E + 1,) and (E,)
_MANIFEST = "manifest.json"
_FOLDER = "columns-"


class Columns:
    """An opened folder of columns; `part` copies some episodes into memory, the rest stays on disk."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        self.starts, self._numbers = (np.fromfile(folder / name, np.int64) for name in _PLACES)
        R, widths = int(self.starts[-1]), about["widths"]
        self._rows = {name: _mapped(folder / name, about["stored"], (R, widths[name])) for name in _WIDE}
        self._rows |= {name: _mapped(folder / name, kind, (R,)) for name, kind in _NARROW.items()}
        source = about["source"] | {"path": Path(about["source"]["path"]), "numbers": self._numbers[:0]}
        self._source = Source(**source | {"dropped": tuple(Dropped(*entry) for entry in source["dropped"])})
        self._findings = tuple(Finding(*entry) for entry in about["findings"])

    def spans(self, rows: int) -> IntArray:
        """First episodes of parts that begin `rows` rows apart, to within an episode, and the end: (P + 1,)."""
        first = np.searchsorted(self.starts, np.arange(0, self.starts[-1], rows))
        return np.unique(np.append(first, len(self._numbers)))

    def part(self, first: int, end: int) -> Imported:
        """Episodes `first` up to `end`, as `import_minari` gives them; what was met while reading is with episode 0."""
        begin, stop = self.starts[[first, end]]
        rows = {
            name: np.array(column[begin:stop], np.float32 if name in _WIDE else column.dtype)
            for name, column in self._rows.items()
        }
        episodes = Episodes(**rows, starts=self.starts[first : end + 1] - begin)
        source = replace(self._source, numbers=self._numbers[first:end])
        return Imported(episodes, source, self._findings if first == 0 else ())


def columns(dataset: Path, stored: Stored = "float32") -> Columns:
    """The columns of the Minari data set in the folder `dataset`; made in it where they are missing or of other data.

    Raises ToolkitError where the data cannot be read, or has numbers that float16 cannot hold.
    """
    folder = dataset / f"{_FOLDER}{stored}"
    key = {"layout": LAYOUT, "sha256": read_metadata(dataset).get("sha256") or sha256(dataset / "data" / MAIN_FILE)}
    if not _made_of(folder, key):
        _make(dataset, folder, stored, key)
    return Columns(folder)


def of_columns(file: Path) -> bool:
    """Whether a file in a data set's folder belongs to columns, so that it says nothing that the data set does not."""
    return file.parent.name.removeprefix(".").startswith(_FOLDER)


def _made_of(folder: Path, key: Json) -> bool:
    try:
        about = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool({name: about.get(name) for name in key} == key)


def _make(dataset: Path, folder: Path, stored: Stored, key: Json) -> None:
    """The folder appears whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed here
    partial.mkdir()
    try:
        about = key | _write(minari_parts(dataset, PART), partial, stored)
        (partial / _MANIFEST).write_text(json.dumps(about) + "\n", encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(folder.parent)


def _write(parts: Iterable[Imported], folder: Path, stored: Stored) -> Json:
    """Every column of all parts; what the manifest says of them."""
    sources: list[Source] = []
    findings: list[Finding] = []
    widths: dict[str, int] = {}
    offset = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in (*_WIDE, *_NARROW, *_PLACES)}
        for part in parts:
            episodes, path = part.episodes, part.source.path
            found = {name: getattr(episodes, name).shape[1] for name in _WIDE}
            if found != (widths := widths or found):
                raise ToolkitError(f"{path}: expected episodes of one width, got {widths} and {found}")
            for name in _WIDE:
                _narrowed(getattr(episodes, name), stored, name, path).tofile(files[name])
            for name in _NARROW:
                getattr(episodes, name).tofile(files[name])
            (episodes.starts[bool(sources) :] + offset).tofile(files["starts"])
            part.source.numbers.tofile(files["numbers"])
            offset += int(episodes.starts[-1])
            sources.append(part.source)
            findings += part.findings
    source = vars(joined(sources)) | {"path": str(sources[0].path)}
    del source["numbers"]
    return {"stored": stored, "widths": widths, "source": source, "findings": findings}


def _narrowed(rows: Array, stored: Stored, name: str, path: Path) -> Array:
    with np.errstate(over="ignore"):
        narrow: Array = rows.astype(stored)
    if (np.isinf(narrow) & np.isfinite(rows)).any():
        largest = np.abs(rows[np.isfinite(rows)]).max()
        raise ToolkitError(f"{path}: {name}: numbers up to {largest:.3g}, more than float16 holds; expected float32")
    return narrow


def _mapped(file: Path, kind: str, shape: tuple[int, ...]) -> Array:
    """The numbers of a file, left on disk; of none there is nothing to map."""
    return np.memmap(file, kind, "r", shape=shape) if math.prod(shape) else np.zeros(shape, kind)

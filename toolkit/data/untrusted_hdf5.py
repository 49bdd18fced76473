"""Reading arrays out of an HDF5 file that may be hostile or damaged.

HDF5 follows links into other files, loads external and virtual storage from anywhere, and declares sizes it does not
hold. None of that is wanted here: such a file is refused before anything of it is read.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5g, h5l, h5o, h5s

from toolkit.types import ToolkitError

MAX_BYTES = 16 * 2**30  # of all arrays of a file together
MAX_EXPANSION = 200  # bytes of arrays for each byte of file; real compression stays far below
_ALWAYS_ALLOWED = 2**26

Array = npt.NDArray[Any]


class UntrustedFile:
    """An HDF5 file opened for reading; a context manager. Raises ToolkitError for whatever it refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
            self._left = min(MAX_BYTES, max(_ALWAYS_ALLOWED, path.stat().st_size * MAX_EXPANSION))
        except OSError as error:
            raise ToolkitError(f"{path}: expected a readable HDF5 file; {error}") from None
        link = self._file.id.links.visit(_out_of_place, info=True)
        if link is not None:
            self._file.close()
            raise ToolkitError(f"{path}: {link.decode(errors='replace')}: a soft or external link; refused")

    def __enter__(self) -> UntrustedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def group(self, name: str) -> Any:
        """The group of that name at the top of the file."""
        return self._open(self._file.id, name, name, h5g.GroupID)

    def keys(self, group: Any, name: str) -> list[str] | None:
        """Names in the group `name` inside `group`, or None where `name` is an array."""
        found = self._open(group, name, name, h5g.GroupID | h5d.DatasetID)
        return [key.decode() for key in found] if isinstance(found, h5g.GroupID) else None

    def read(self, group: Any, key: str, where: str) -> Array:
        """The numbers of the array `key` (a path below `group`); `where` names the group in errors."""
        found = self._open(group, key, where, h5d.DatasetID)
        plist = found.get_create_plist()
        if plist.get_layout() == h5d.VIRTUAL or plist.get_external_count():
            raise ToolkitError(f"{self.path}: {where}/{key}: data outside the file (virtual or external); refused")
        if found.dtype.kind not in "fiub" or found.rank < 1:
            raise ToolkitError(f"{self.path}: {where}/{key}: expected an array of numbers, got {found.dtype}")
        self._left -= int(np.prod(found.shape, dtype=object)) * found.dtype.itemsize
        if self._left < 0:
            raise ToolkitError(f"{self.path}: {where}/{key}: declares more data than a file of this size can hold")
        rows: Array = np.empty(found.shape, found.dtype)
        try:
            found.read(h5s.ALL, h5s.ALL, rows)
        except OSError as error:
            raise ToolkitError(f"{self.path}: {where}/{key}: damaged; {error}") from None
        return rows

    def _open(self, group: Any, key: str, where: str, kind: Any) -> Any:
        try:
            found = h5o.open(group, key.encode())
        except (KeyError, OSError):
            raise ToolkitError(f"{self.path}: {where}: expected {key!r}, which is not there") from None
        if not isinstance(found, kind):
            raise ToolkitError(f"{self.path}: {where}: {key!r}: expected another kind of object (group, array)")
        return found


def _out_of_place(name: bytes, info: Any) -> bytes | None:
    """Ends a walk over all links at the first that is not a plain one."""
    return None if info.type == h5l.TYPE_HARD else name

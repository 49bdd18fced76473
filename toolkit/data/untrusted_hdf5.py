"""Reading arrays out of an HDF5 file that may be hostile or damaged.

HDF5 follows links into other files, loads external and virtual storage from anywhere, declares sizes it does not hold
and expands compressed pieces beyond their size. None of that is wanted here: what is asked for is looked at first, and
refused. What nobody asks for is never touched, however deep or crowded a file is.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5z

from toolkit.types import Array, ToolkitError

MAX_BYTES = 16 * 2**30  # of all arrays that are held at once
MAX_EXPANSION = 200  # bytes of arrays for each byte of file; real compression stays far below
MAX_TEXT_BYTES = 2**16
MAX_NAMES = 100_000  # in a group whose names are listed
MAX_CHUNK_BYTES = 2**26
_ALWAYS_ALLOWED = 2**26
_SMALL_PIECE = 2**16  # compressed bytes that cannot become more than about a thousand times as much
_SUM_BYTES = 4  # a checksum that may be compressed with a piece
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)  # what HDF5 says of a broken file
_COMPRESSORS = {h5z.FILTER_DEFLATE, h5z.FILTER_LZF}  # the second makes at most 88 bytes of one
_FILTERS = {*_COMPRESSORS, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}


def allowed_bytes(file_bytes: int) -> int:
    """How much the arrays of a file of that size may take in memory."""
    return min(MAX_BYTES, max(_ALWAYS_ALLOWED, file_bytes * MAX_EXPANSION))


class UntrustedFile:
    """An HDF5 file opened for reading; a context manager. Raises ToolkitError for whatever it refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
            self._left = max(_ALWAYS_ALLOWED, path.stat().st_size * MAX_EXPANSION)
            self.let_go()
        except OSError as error:
            raise ToolkitError(f"{path}: expected a readable HDF5 file; {error}") from None

    def __enter__(self) -> UntrustedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def let_go(self) -> None:
        """The caller holds nothing more of what it has read, so that as much again may be read."""
        self._room = MAX_BYTES

    def group(self, name: str) -> Any:
        """The group of that name at the top of the file."""
        return self._open(self._file.id, name, name, h5g.GroupID)

    def keys(self, group: Any, name: str) -> list[str] | None:
        """Names in the group `name` inside `group`, or None where `name` is an array."""
        found = self._open(group, name, name, h5g.GroupID | h5d.DatasetID)
        try:
            if isinstance(found, h5g.GroupID) and found.get_num_objs() > MAX_NAMES:
                raise ToolkitError(f"{self.path}: {name}: expected at most {MAX_NAMES} entries; refused")
            return [key.decode() for key in found] if isinstance(found, h5g.GroupID) else None
        except _DAMAGE as error:
            raise ToolkitError(f"{self.path}: {name}: damaged; {error}") from None

    @property
    def root(self) -> Any:
        """The group at the top."""
        return self._open(self._file.id, "/", "/", h5g.GroupID)

    def text(self, group: Any, key: str) -> str | None:
        """The attribute `key` where it is a text of reasonable length, else None."""
        try:
            if not h5a.exists(group, key.encode()):
                return None
            found = h5a.open(group, key.encode())
            if found.shape != () or found.get_storage_size() > MAX_TEXT_BYTES:
                return None
            value = h5py.Group(group).attrs[key]
        except _DAMAGE:
            return None
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        return text if isinstance(text, str) else None

    def shape(self, group: Any, name: str) -> tuple[int, ...]:
        """Declared shape of the array `name` inside `group`; () for a group, and for an array of nothing."""
        found = self._open(group, name, name, h5g.GroupID | h5d.DatasetID)
        return tuple(found.shape or ()) if isinstance(found, h5d.DatasetID) else ()

    def words(self, group: Any, key: str, where: str) -> list[str]:
        """The texts of the array `key` of fixed-length ones."""
        return [word.decode(errors="replace") for word in self.read(group, key, where, "S").ravel().tolist()]

    def read(self, group: Any, key: str, where: str, kinds: str = "fiub") -> Array:
        """The numbers of the array `key` (a path below `group`); `where` names the group in errors."""
        found = self._open(group, key, where, h5d.DatasetID)
        try:
            return self._read(found, f"{where}/{key}", kinds)
        except (*_DAMAGE, zlib.error) as error:
            raise ToolkitError(f"{self.path}: {where}/{key}: damaged; {error}") from None

    def _read(self, found: Any, where: str, kinds: str) -> Array:
        plist = found.get_create_plist()
        if plist.get_layout() == h5d.VIRTUAL or plist.get_external_count():
            raise ToolkitError(f"{self.path}: {where}: data outside the file (virtual or external); refused")
        if found.dtype.kind not in kinds or found.rank < 1:
            wanted = "fixed-length texts" if kinds == "S" else "numbers"
            raise ToolkitError(f"{self.path}: {where}: expected an array of {wanted}, got {found.dtype}")
        size = math.prod(found.shape) * found.dtype.itemsize
        self._left, self._room = self._left - size, self._room - size
        if min(self._left, self._room) < 0:
            raise ToolkitError(f"{self.path}: {where}: declares more data than a file of this size can hold")
        if plist.get_layout() == h5d.CHUNKED:
            _check_chunks(found, plist)
        rows: Array = np.empty(found.shape, found.dtype)
        found.read(h5s.ALL, h5s.ALL, rows)
        return rows

    def _open(self, group: Any, key: str, where: str, kind: Any) -> Any:
        """The object at the path `key` below `group`, reached over plain links only."""
        found = group
        try:
            for part in filter(None, key.split("/")):
                if part != "." and found.links.get_info(part.encode()).type != h5l.TYPE_HARD:
                    path = key if where in (key, "/") else f"{where}/{key}"
                    raise ToolkitError(f"{self.path}: {path}: a soft or external link; refused")
                found = h5o.open(found, part.encode())
        except (*_DAMAGE, AttributeError):
            raise ToolkitError(f"{self.path}: {where}: expected {key!r}, which is not there") from None
        if not isinstance(found, kind):
            raise ToolkitError(f"{self.path}: {where}: {key!r}: expected another kind of object (group, array)")
        return found


def _check_chunks(found: Any, plist: Any) -> None:
    """Raises ValueError where a compressed piece holds more than its declared size: HDF5 would expand it in whole."""
    filters = [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]
    if set(filters) - _FILTERS or sum(map(_COMPRESSORS.__contains__, filters)) > 1:  # two multiply
        raise ValueError("it is stored through unusual filters; refused")
    declared = math.prod(plist.get_chunk()) * found.dtype.itemsize
    if declared > MAX_CHUNK_BYTES:
        raise ValueError(f"it is stored in pieces of {declared} bytes, expected at most {MAX_CHUNK_BYTES}; refused")
    if h5z.FILTER_DEFLATE not in filters:
        return
    large: list[tuple[int, ...]] = []
    found.chunk_iter(lambda piece: large.append(piece.chunk_offset) if piece.size > _SMALL_PIECE else None)
    for offset in large:
        _, packed = found.read_direct_chunk(offset)
        if len(zlib.decompressobj().decompress(packed, declared + _SUM_BYTES + 1)) > declared + _SUM_BYTES:
            raise ValueError("a compressed piece of it holds more than it declares; refused")

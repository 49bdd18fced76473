"""Reading arrays out of a .npz file that may be hostile: no pickles, no names that lead elsewhere, no bombs."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from toolkit.data.untrusted_hdf5 import allowed_bytes
from toolkit.types import Array, ToolkitError

MAX_ARRAYS = 256
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def names(path: Path) -> list[str]:
    """Names of the arrays in the file, unread. Raises ToolkitError for what is no plain .npz."""
    with _opened(path) as archive:
        return [info.filename.removesuffix(".npy") for info in _members(path, archive)]


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of numbers by name; those of other kinds are refused. Raises ToolkitError."""
    left = allowed_bytes(path.stat().st_size)
    arrays = {}
    with _opened(path) as archive:
        for info in _members(path, archive):
            name = info.filename.removesuffix(".npy")
            left -= info.file_size
            if left < 0:
                raise ToolkitError(f"{path}: {name}: declares more data than a file of this size can hold; refused")
            try:
                arrays[name] = _array(archive, info)
            except Exception as error:  # zlib.error too, and whatever a made-up header provokes
                raise ToolkitError(f"{path}: {name}: not a readable array of numbers; {error}") from None
    return arrays


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ToolkitError(f"{path}: expected a readable .npz file; {error}") from None


def _members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MAX_ARRAYS:
        raise ToolkitError(f"{path}: expected at most {MAX_ARRAYS} arrays, got {len(members)}; refused")
    seen: set[str] = set()
    for info in members:
        name = info.filename
        if not name.endswith(".npy") or name.startswith("/") or ".." in name or "\\" in name or name in seen:
            raise ToolkitError(f"{path}: {name[:80]!r}: expected plain, single names of arrays; refused")
        if info.compress_type not in _METHODS or info.flag_bits & 1:
            raise ToolkitError(f"{path}: {name[:80]!r}: an unusual compression or encryption; refused")
        seen.add(name)
    return members


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the .npy format")
        shape, fortran, dtype = _HEADERS[version](file, max_header_size=10_000)
        if dtype.kind not in "fiub" or dtype.hasobject:
            raise ValueError(f"expected numbers, got {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if size > info.file_size:
            raise ValueError("it declares more numbers than it holds")
        rows = np.frombuffer(file.read(size), dtype)
        return rows.reshape(shape, order="F" if fortran else "C").copy()

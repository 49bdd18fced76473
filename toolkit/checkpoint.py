"""Atomic checkpoints: a folder of numbered directories, each with tensors, JSON and a manifest of hashes (level 3).

    FOLDER/000007/tensors.safetensors   every tensor by name
    FOLDER/000007/meta.json             everything that is not a tensor
    FOLDER/000007/manifest.json         schema version, size and sha256 of the two files above
    FOLDER/000006/...                   the one before, kept until a newer pair stands

A save writes into a hidden temporary directory, forces it to disk and renames it: at any moment a reader finds the
previous checkpoint or the new one, never a mixture. A load believes a directory only if sizes and hashes match,
and otherwise falls back to the one before. Nothing here can run code from a file: tensors are safetensors, the
rest is JSON.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.torch
import torch

from toolkit.files import canonical, sync
from toolkit.tensor_file import Leaf, chunks
from toolkit.types import Json, ToolkitError

Tree: TypeAlias = Any  # a leaf, or a NamedTuple, tuple, list or dict of trees

SCHEMA = 1
TENSORS, META, MANIFEST = "tensors.safetensors", "meta.json", "manifest.json"
KEEP = 2
# A checkpoint of this package stays far below these; a file that asks for more is refused before it is read.
_MAX_BYTES = {TENSORS: 1 << 40, META: 1 << 26, MANIFEST: 1 << 16}
_MAX_HEADER = 1 << 24

_NUMBERED = re.compile(r"\d{6,}")
_TEMPORARY = ".tmp-"


class CheckpointError(ToolkitError):
    """A checkpoint that is missing, damaged or of an unknown kind."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one."""


def save(folder: str | Path, tensors: Mapping[str, Leaf], meta: Json) -> Path:
    """Write one more checkpoint into `folder` and return its directory; the newest two stay.

    `meta` must be JSON. Raises `CheckpointError` when the disk is full or refuses to be written; what stood in
    the folder before is then still there.
    """
    folder = Path(folder)
    contents: dict[str, list[bytes | memoryview]] = {
        TENSORS: list(chunks(tensors)),
        META: [json.dumps(meta, indent=1, ensure_ascii=False).encode()],
    }
    needed = sum(len(chunk) for parts in contents.values() for chunk in parts)
    temporary = folder / f"{_TEMPORARY}{os.getpid()}"
    try:
        _prepare(folder)
        present = _numbered(folder)
        target = folder / f"{int(present[0].name) + 1 if present else 1:06d}"
        temporary.mkdir()
        files = {name: _write(temporary / name, parts) for name, parts in contents.items()}
        _write(temporary / MANIFEST, [canonical({"schema": SCHEMA, "files": files})])
        sync(temporary)
        os.rename(temporary, target)
        sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_explain(error, folder, needed)) from error
    _prune(present)
    return target


def load(folder: str | Path) -> tuple[dict[str, torch.Tensor], Json]:
    """Read the newest intact checkpoint of `folder`, or the very directory when it is one checkpoint.

    Returns the tensors (in memory of their own, on the CPU) and the meta data. A damaged checkpoint is passed over
    with a `CheckpointWarning`; raises `CheckpointError` when none is intact.
    """
    folder = Path(folder)
    candidates = [folder] if (folder / MANIFEST).is_file() else _numbered(folder)
    faults: list[str] = []
    for directory in candidates:
        try:
            found = _read(directory)
        except (CheckpointError, OSError) as error:
            faults.append(f"{directory}: {error}")
            continue
        if faults:
            warnings.warn(f"damaged checkpoint passed over: {'; '.join(faults)}; using {directory}",
                          CheckpointWarning, stacklevel=2)  # fmt: skip
        return found
    if not faults:
        raise CheckpointError(f"{folder}: no checkpoint here; expected a folder holding directories such as 000001")
    raise CheckpointError(f"no intact checkpoint: {'; '.join(faults)}; delete {folder} to start afresh")


def exists(folder: str | Path) -> bool:
    """Whether `folder` holds a finished checkpoint, intact or not."""
    return (Path(folder) / MANIFEST).is_file() or bool(_numbered(Path(folder)))


def kept(folder: str | Path) -> list[Path]:
    """Finished checkpoints of a folder, oldest first."""
    return _numbered(Path(folder))[::-1]


def flatten(tree: Tree, prefix: str = "") -> dict[str, Leaf]:
    """Name every tensor of a nested NamedTuple, tuple, list or dict: `{"pi/p/w0": ...}`; `unflatten` goes back."""
    if isinstance(tree, torch.Tensor | np.ndarray):
        return {prefix: tree}
    if isinstance(tree, np.generic):
        return {prefix: np.asarray(tree)}
    flat: dict[str, Leaf] = {}
    for key, child in _children(tree, prefix):
        flat.update(flatten(child, f"{prefix}/{key}" if prefix else key))
    return flat


def unflatten(flat: Mapping[str, Leaf], like: Tree) -> Tree:
    """Rebuild the structure of `like` from names; each leaf takes the kind and device of its counterpart.

    Raises `CheckpointError` naming what is missing, unexpected, or of another shape or type.
    """
    expected = flatten(like)
    faults = [f"missing {name}" for name in expected if name not in flat]
    faults += [f"unexpected {name}" for name in flat if name not in expected]
    for name in expected.keys() & flat.keys():
        ours, theirs = _describe(expected[name]), _describe(flat[name])
        if ours != theirs:
            faults.append(f"{name} is {theirs}, expected {ours}")
    if faults:
        shown = ", ".join(sorted(faults)[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(f"the checkpoint does not fit this configuration: {shown}")
    return _rebuild(flat, like, "")


def _rebuild(flat: Mapping[str, Leaf], like: Tree, prefix: str) -> Tree:
    if isinstance(like, torch.Tensor):
        return torch.as_tensor(flat[prefix]).to(like.device)
    if isinstance(like, np.ndarray | np.generic):
        return np.asarray(flat[prefix])
    made = {key: _rebuild(flat, child, f"{prefix}/{key}" if prefix else key) for key, child in _children(like, prefix)}
    if isinstance(like, dict):
        return made
    return type(like)(**made) if hasattr(like, "_fields") else type(like)(made.values())


def _children(tree: Tree, prefix: str) -> Iterator[tuple[str, Tree]]:
    if hasattr(tree, "_fields"):
        return zip(tree._fields, tree, strict=True)
    if isinstance(tree, tuple | list):
        return ((str(i), child) for i, child in enumerate(tree))
    if isinstance(tree, dict) and all(isinstance(key, str) and key and "/" not in key for key in tree):
        return iter(tree.items())
    raise TypeError(f"cannot name the tensors of {prefix or 'the root'}: {type(tree).__name__}")


def _describe(leaf: Leaf) -> str:
    return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"


def _prepare(folder: Path) -> None:
    """Make the folder last, and clear what a killed save left in it."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
    for stale in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(stale)


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> Json:
    """Write and force to disk; returns the size and the hash for the manifest."""
    digest, size = hashlib.sha256(), 0
    with open(path, "xb", buffering=0) as file:
        for chunk in parts:
            digest.update(chunk)
            size += len(chunk)
            rest = memoryview(chunk)
            while rest:  # a raw write may be short
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _numbered(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _prune(older: list[Path]) -> None:
    """Of the checkpoints before the new one, keep the newest that looks whole: it is what a fallback needs."""
    kept = 1
    for directory in older:
        if kept < KEEP and _whole(directory):
            kept += 1
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _whole(directory: Path) -> bool:
    """Whether the files have the sizes of the manifest; cheap, finds truncation but not flipped bits."""
    try:
        files = _manifest(directory)
        return all((directory / name).stat().st_size == entry["bytes"] for name, entry in files.items())
    except (CheckpointError, OSError):
        return False


def _read(directory: Path) -> tuple[dict[str, torch.Tensor], Json]:
    contents: dict[str, bytes] = {}
    files = _manifest(directory)
    for name, entry in files.items():
        _check_size(directory / name, entry["bytes"])
    _check_header(directory / TENSORS)
    for name, entry in files.items():
        data = contents[name] = (directory / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CheckpointError(f"{name} does not match its sha256")
    try:
        tensors = safetensors.torch.load(contents[TENSORS])
        meta = json.loads(contents[META])
    except (safetensors.SafetensorError, ValueError, RecursionError, KeyError) as error:
        raise CheckpointError(f"unreadable: {error}") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{META} holds no object")
    return tensors, meta


def _check_header(path: Path) -> None:
    """Refuse a header that no save writes, before anything of its size is read or parsed."""
    with open(path, "rb") as file:
        declared = int.from_bytes(file.read(8), "little")
    if not 2 <= declared <= min(_MAX_HEADER, path.stat().st_size - 8):
        raise CheckpointError(f"{path.name} declares a header of {declared:,} bytes")


def _manifest(directory: Path) -> Json:
    """The files of a manifest: name -> {"bytes", "sha256"}."""
    _check_size(directory / MANIFEST)
    data = (directory / MANIFEST).read_bytes()
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or canonical(manifest) != data:
        raise CheckpointError(f"{MANIFEST} was altered")
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(f"{MANIFEST} has schema {manifest.get('schema')!r}; this version reads {SCHEMA}")
    files = manifest.get("files")
    if not isinstance(files, dict) or files.keys() != {TENSORS, META}:
        raise CheckpointError(f"{MANIFEST} must list {TENSORS} and {META}")
    if not all(isinstance(e, dict) and isinstance(e.get("bytes"), int) and "sha256" in e for e in files.values()):
        raise CheckpointError(f"{MANIFEST} lacks sizes or hashes")
    return files


def _check_size(path: Path, size: int | None = None) -> None:
    """Refuse what is not a plain file of the declared and believable size."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path.name} is not a plain file")
    if found.st_size > _MAX_BYTES[path.name] or (size is not None and found.st_size != size):
        raise CheckpointError(f"{path.name} holds {found.st_size:,} bytes, expected {size or 'fewer'}")


def _explain(error: OSError, folder: Path, needed: int) -> str:
    """One line that says why a save failed and how to go on."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        try:
            free = f"{shutil.disk_usage(folder).free:,} are free"
        except OSError:
            free = "how much is free is unknown"
        reason = f"{reason}: a checkpoint needs {needed:,} bytes, {free}"
    return (f"cannot write a checkpoint into {folder}: {reason}; the previous checkpoint is untouched, "
            "make room or choose another --out, then run the same command again")  # fmt: skip

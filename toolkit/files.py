"""What everything that writes files for keeps needs (level 0)."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolkit.types import Json


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_file(module: str) -> Path | None:
    """The file of an installed module that may not be imported yet; None where there is none."""
    try:
        found = find_spec(module)
    except ImportError:
        return None
    return Path(found.origin) if found and found.origin else None


def sync(path: Path) -> None:
    """Make a file's content, or the names in a directory, last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def canonical(value: Json) -> bytes:
    """JSON in the one spelling that has no choice left in it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def read_json(path: Path) -> Json | None:
    """The object in a file; None where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one piece: a reader finds the old file or the new one, also after a power cut."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Write a text file in one piece and return its path; a pipe or a device is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return path
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync(path.parent)
    return path

"""The run folder: who may write in it, what is finished, what can go on.

A stage is finished when its manifest stands: it is written last, in one piece, and lists the hash of every file the
stage left. An unfinished stage has at most a checkpoint, which knows the key it belongs to.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Self

from toolkit import strict_yaml
from toolkit.files import read_json, sha256, write_json
from toolkit.types import Failed, Json, ToolkitError

SCHEMA = 1
MANIFEST, LOCK, PIPELINE, KEYS, SUMMARY, STITCHES, REPORT, ELAPSED = (
    "manifest.json", "lock", "pipeline.yaml", "keys.json", "summary.json", "stitch.json", "report.html", "elapsed.json",
)  # fmt: skip


class RunFolder:
    """Paths of one run; a context manager that holds the folder's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.tensorboard = root / "tensorboard"
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Make the folder and lock it; Failed while another process holds it.

        The kernel drops the lock with its process, however that ends, so a stale one cannot be.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = open(self.root / LOCK, "a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "an unknown process"
            lock.close()
            raise Failed(
                f"{self.root}: in use by {owner}; wait for it, stop it, or choose another folder with --out"
            ) from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def stage(self, name: str) -> Path:
        """Folder of one stage."""
        return self.root / "stages" / name

    def finished(self, name: str, key: str) -> Json | None:
        """The manifest of a stage that is done under this key and whose files are as it left them."""
        manifest = read_json(self.stage(name) / MANIFEST)
        if manifest is None or manifest.get("schema") != SCHEMA or manifest.get("key") != key:
            return None
        return manifest if all(self._intact(path, entry) for path, entry in manifest["files"].items()) else None

    def outdated(self, name: str, key: str) -> bool:
        """Whether a stage was done before, under another key."""
        manifest = read_json(self.stage(name) / MANIFEST)
        return manifest is not None and manifest.get("key") != key

    def finish(self, name: str, manifest: Json, more: Iterable[Path] = ()) -> Json:
        """Write the manifest over everything in the stage's folder and over the files below `more`."""
        (self.stage(name) / ELAPSED).unlink(missing_ok=True)
        folders = [self.stage(name), *more]
        paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        files = {
            str(path.relative_to(self.root)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in paths
            if path.name != MANIFEST or path.parent != self.stage(name)
        }
        manifest = {"schema": SCHEMA, "stage": name, **manifest, "files": files}
        write_json(self.stage(name) / MANIFEST, manifest)
        return manifest

    def begin(self, name: str) -> None:
        """An empty folder for a stage that starts afresh; what stood there goes, and the run is unfinished."""
        for file in (SUMMARY, STITCHES, REPORT):
            (self.root / file).unlink(missing_ok=True)
        folder = self.stage(name)
        for phase in ("offline", "online"):
            shutil.rmtree(self.tensorboard / phase / name, ignore_errors=True)
        discard(folder)
        folder.mkdir(parents=True)

    def elapsed(self, name: str, seconds: float | None = None) -> float:
        """Seconds earlier runs put into an unfinished stage; with `seconds`, note that many."""
        path = self.stage(name) / ELAPSED
        if seconds is not None:
            write_json(path, {"wall_s": seconds})
            return seconds
        return float((read_json(path) or {}).get("wall_s", 0.0))

    def _intact(self, path: str, entry: Json) -> bool:
        file = self.root / path
        return file.is_file() and file.stat().st_size == entry["bytes"] and sha256(file) == entry["sha256"]


def choose(name: str, resolved: str, again: bool) -> Path:
    """The folder of a run that names none: `runs/NAME-N`.

    The newest one if it is the same pipeline, unfinished and not in use, so that the same command goes on with it;
    the newest in any case when stages are to be run `again`; else the next number.
    """
    numbers = [int(match[1]) for path in Path("runs").glob(f"{name}-*") if (match := _numbered(name, path.name))]
    newest = Path("runs") / f"{name}-{max(numbers, default=0)}"
    finished = (newest / SUMMARY).exists() and (newest / REPORT).exists()  # a page alone may be of an unfinished run
    if numbers and (again or (_same(newest, resolved) and not finished and not _busy(newest))):
        return newest
    return Path("runs") / f"{name}-{max(numbers, default=0) + 1}"


def check_usable(root: Path, name: str, task: str) -> None:
    """Refuse a folder that holds something else than a run of this pipeline on this task. Raises ToolkitError."""
    if root.exists() and not root.is_dir():
        raise ToolkitError(f"{root}: expected a folder, or a name that is still free")
    if root.is_dir() and any(root.iterdir()) and not any((root / name).exists() for name in (PIPELINE, LOCK)):
        raise ToolkitError(f"{root}: holds files but no run; choose an empty folder, or a run to go on with")
    file = root / PIPELINE
    there = strict_yaml.read(file).value if file.is_file() else None
    if isinstance(there, dict) and (there.get("name"), there.get("task")) != (name, task):
        other = f"{there.get('name')} on {there.get('task')}"
        raise ToolkitError(f"{root}: holds a run of {other}, and this one is {name} on {task}; choose another --out")


def _numbered(name: str, folder: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{re.escape(name)}-(\d+)", folder)


def _same(root: Path, resolved: str) -> bool:
    file = root / PIPELINE
    return not file.exists() or file.read_bytes() == resolved.encode()


def _busy(root: Path) -> bool:
    try:
        with open(root / LOCK, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def discard(path: Path) -> None:
    """Remove a folder so that a kill leaves all of it under its name, or nothing."""
    aside = path.with_name(f".{path.name}.discarded")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        os.rename(path, aside)
        shutil.rmtree(aside)

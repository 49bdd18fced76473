"""Data sets written in Minari's HDF5 layout, so that `minari.load_dataset` opens them unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5p, h5s, h5t

from toolkit.data.minari import MAIN_FILE, METADATA_FILE, dataset_path
from toolkit.data.minari_shapes import TAKEN
from toolkit.files import sha256, sync
from toolkit.types import Array, Json, ToolkitError

# The oldest version whose layout this is, so that older readers take it too.
FORMAT_VERSION = "0.5.0"

_SCALAR = h5s.create(h5s.SCALAR)


class RecordedEpisode(NamedTuple):
    """One episode as the environment gave it, T transitions long."""

    seed: int | None  # what the environment was reset with, where it is known
    observations: Mapping[str, Array]  # each (T + 1, ...); `observation` alone is written as plain ones
    actions: Array  # (T, A)
    rewards: Array  # (T,)
    terminations: Array  # (T,) bool
    truncations: Array  # (T,) bool


def free_path(dataset_id: str, root: Path, replace: bool) -> Path:
    """Folder of a data set that may be written. Raises ToolkitError for a malformed id, for one that is taken, and for
    one inside another data set, with which it would go."""
    target, base = dataset_path(dataset_id, root), root.resolve()
    above = [base / folder for folder in target.relative_to(base).parents]
    if around := next(filter(_is_dataset, above), None):
        raise ToolkitError(f"{target}: inside {around}, a data set itself; expected a name beside it")
    if target.is_symlink() or (target.exists() and not _is_dataset(target)):
        raise ToolkitError(f"{target}: no data set, or a link, has this name; expected a free one")
    if target.exists() and not replace:
        raise ToolkitError(f"{target}: this data set exists already; expected a free name, or --replace")
    return target


def _is_dataset(folder: Path) -> bool:
    return (folder / "data" / METADATA_FILE).exists()


def write_minari(
    episodes: Iterable[RecordedEpisode],
    dataset_id: str,
    root: Path,
    *,
    observation_space: Any,
    action_space: Any,
    env_spec: str | None,
    metadata: Json,
    replace: bool = False,
) -> Path:
    """Write a data set below `root` and return its folder.

    The folder appears whole or not at all: everything is written and synced in a hidden folder beside it, which then
    takes its name, and goes where that fails or is interrupted. The same episodes give the same bytes. `metadata` is
    added to Minari's own fields. `env_spec` is the JSON of a specification. An existing data set is an error,
    unless `replace`.
    """
    from minari.serialization import serialize_space

    target = dataset_path(dataset_id, root)
    partial, old = (target.with_name(f".{target.name}.{state}") for state in ("partial", "old"))
    _restore(old, target)  # of a run that was killed here
    free_path(dataset_id, root, replace)
    shutil.rmtree(partial, ignore_errors=True)
    described = {
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": serialize_space(observation_space),
        "action_space": serialize_space(action_space),
        **({"env_spec": env_spec} if env_spec else {}),
        "dataset_id": dataset_id,
        "minari_version": FORMAT_VERSION,
    }
    try:
        _fill(partial, episodes, described, metadata)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        sync(target.parent)
    finally:
        _restore(old, target)
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _restore(old: Path, target: Path) -> None:
    """Give a data set that was moved out of the way its name back, where no other has taken it."""
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _fill(folder: Path, episodes: Iterable[RecordedEpisode], described: Json, metadata: Json) -> None:
    """Write both files of a data set so that they last."""
    data = folder / "data"
    data.mkdir(parents=True)
    file, about = data / MAIN_FILE, data / METADATA_FILE
    count, steps = _write_episodes(file, episodes)
    counted = {"total_episodes": count, "total_steps": steps}
    measured = {"dataset_size": round(file.stat().st_size / 1e6, 1), "sha256": sha256(file)}
    text = json.dumps(counted | described | measured | metadata, indent=1)
    about.write_text(text + "\n", encoding="utf-8")
    for path in (file, about, data, folder):
        sync(path)


def _write_episodes(path: Path, episodes: Iterable[RecordedEpisode]) -> tuple[int, int]:
    """Episodes and transitions written. Low-level calls: a data set has ten objects an episode, thousands in all."""
    count = steps = 0
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)  # the same data, the same bytes
    # what describes a data set is written by the block, not in every object's few bytes
    with h5py.File(path, "w", meta_block_size=1 << 16) as file:
        for episode in episodes:
            length = len(episode.rewards)
            group = h5g.create(file.id, b"episode_%d" % count)
            for name, value in ((b"id", count), (b"seed", episode.seed), (b"total_steps", length)):
                if value is None:
                    continue
                h5a.create(group, name, h5t.STD_I64LE, _SCALAR).write(np.array(value, np.int64), h5t.NATIVE_INT64)
            plain = episode.observations.keys() == {"observation"}
            observations = group if plain else h5g.create(group, b"observations")
            for key, rows in episode.observations.items():
                _check_rows(count, f"observations/{key}", rows, length + 1)
                _put(observations, "observations" if plain else key, rows, plist)
            for key in TAKEN:
                _check_rows(count, key, getattr(episode, key), length)
                _put(group, key, getattr(episode, key), plist)
            count, steps = count + 1, steps + length
    return count, steps


def _check_rows(episode: int, name: str, rows: Array, expected: int) -> None:
    if len(rows) != expected or expected < 1:
        raise ValueError(f"episode {episode}: {name}: expected {expected} rows, got {len(rows)}")


def _put(group: Any, name: str, rows: Array, plist: Any) -> None:
    kind = _kind(rows.dtype)
    made = h5d.create(group, name.encode(), kind, _space(rows.shape), plist)
    made.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(rows), kind)


@lru_cache
def _kind(dtype: Any) -> Any:
    return h5t.py_create(dtype, logical=True)


@lru_cache(maxsize=4096)
def _space(shape: tuple[int, ...]) -> Any:
    return h5s.create_simple(shape)

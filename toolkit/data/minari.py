"""Data sets in Minari's HDF5 layout, read without trusting them; `minari_writer` writes them.

Layout of one data set below a root folder: `<id>/data/main_data.hdf5` with a group `episode_<i>` for each episode
(observations of T + 1 rows, everything else of T) and `<id>/data/metadata.json`.

Reading never makes an environment from what a file says, follows no link out of the file, loads no external or
virtual storage and reads nothing before its declared size is checked.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.data.untrusted_hdf5 import UntrustedFile
from toolkit.files import sha256
from toolkit.types import Episodes, FloatArray, Json, ToolkitError

MAIN_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"
MAX_EPISODES = 10_000_000
MAX_METADATA_BYTES = 16 * 2**20
_ID = re.compile(r"(?:[A-Za-z0-9][-\w]*/)*[A-Za-z0-9][-\w]*-v[0-9]{1,6}", re.ASCII)
_OBSERVED = ("observation", "achieved_goal", "desired_goal")  # T + 1 rows each
TAKEN = ("actions", "rewards", "terminations", "truncations")  # T rows each
_ACTION_SLACK = 1e-4  # outside the bounds by rounding is clipped, by more is an error

Array = npt.NDArray[Any]


def datasets_root() -> Path:
    """Where Minari looks: $MINARI_DATASETS_PATH, or ~/.minari/datasets."""
    named = os.environ.get("MINARI_DATASETS_PATH")
    return Path(named) if named else Path.home() / ".minari" / "datasets"


def dataset_path(dataset_id: str, root: Path | None = None) -> Path:
    """Folder of a data set below `root`. Raises ToolkitError for a malformed id or one that leads out of the root."""
    if not _ID.fullmatch(dataset_id):
        raise ToolkitError(
            f"data set id {dataset_id!r}: expected NAMESPACE/NAME-vNUMBER of letters, digits, '-' and '_', "
            "such as pointmaze/medium-stitch-v0"
        )
    base = (root or datasets_root()).resolve()
    path = base / dataset_id
    if not path.resolve().is_relative_to(base):
        raise ToolkitError(f"data set id {dataset_id!r}: {path} leads out of {base}; expected a folder inside it")
    return path


def read_minari(dataset: str | Path, root: Path | None = None) -> Episodes:
    """Read a data set by its folder or by its id below `root` (Minari's own root when None).

    Dict observations with `observation`, `achieved_goal` and `desired_goal`, or plain ones (then G is 0); actions come
    back scaled to [-1, 1]. An episode whose last step has no flag counts as truncated. Raises ToolkitError that names
    the file, the episode and what was expected, for anything else than that.
    """
    folder = Path(dataset)
    if not (folder / "data").is_dir():
        folder = dataset_path(str(dataset), root)
    file = folder / "data" / MAIN_FILE
    metadata = read_metadata(folder)
    total = metadata.get("total_episodes")
    if not isinstance(total, int) or not 0 < total <= MAX_EPISODES:
        raise ToolkitError(f"{folder}: total_episodes: expected 1 to {MAX_EPISODES}, got {total!r}")
    low, high = _action_bounds(folder, metadata)
    if "sha256" in metadata and file.is_file() and metadata["sha256"] != sha256(file):
        raise ToolkitError(
            f"{file}: its bytes differ from those recorded in {METADATA_FILE}: damaged, or changed since; "
            'collect it again, or remove "sha256" there if the change was meant'
        )
    with UntrustedFile(file) as opened:
        raw = [_read_episode(opened, index) for index in range(total)]
    _check_shapes(file, raw)
    return _pack(file, raw, low, high)


def read_metadata(folder: Path) -> Json:
    """The metadata of the data set in `folder`, unparsed beyond JSON. Raises ToolkitError."""
    path = folder / "data" / METADATA_FILE
    try:
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise ToolkitError(f"{path}: expected at most {MAX_METADATA_BYTES} bytes")
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ToolkitError(f"{path}: expected a Minari data set's JSON metadata; {error}") from None
    if not isinstance(metadata, dict) or metadata.get("data_format", "hdf5") != "hdf5":
        raise ToolkitError(f"{path}: expected the metadata of a Minari data set in HDF5 format")
    return metadata


def _read_episode(file: UntrustedFile, index: int) -> dict[str, Array]:
    """The arrays of one episode, by name; plain observations are called `observation`."""
    name = f"episode_{index}"
    group = file.group(name)
    keys = file.keys(group, "observations")
    if keys is None:
        arrays = {"observation": file.read(group, "observations", name)}
    else:
        arrays = {key: file.read(group, f"observations/{key}", name) for key in _OBSERVED if key in keys}
    return arrays | {key: file.read(group, key, name) for key in TAKEN}


def _check_shapes(path: Path, raw: list[dict[str, Array]]) -> None:
    """Every episode has the first one's arrays and widths, T rows of what was done and T + 1 of what was seen."""
    first = raw[0]
    for index, arrays in enumerate(raw):
        where, length = f"{path}: episode_{index}", len(arrays["rewards"])
        if arrays.keys() != first.keys() or "observation" not in arrays:
            raise ToolkitError(f"{where}: expected the arrays {['observation', *list(first)[1:]]}, got {list(arrays)}")
        if length < 1:
            raise ToolkitError(f"{where}: rewards: expected at least one transition, got none")
        for key, rows in arrays.items():
            width = first[key].shape[1:2] if key in _OBSERVED or key == "actions" else ()
            expected = (length + (key in _OBSERVED), *width)
            if rows.shape != expected:
                raise ToolkitError(f"{where}: {key}: expected shape {expected}, got {rows.shape}")


def _pack(path: Path, raw: list[dict[str, Array]], low: FloatArray, high: FloatArray) -> Episodes:
    """All episodes back to back; a final row holds zeros where there is only an observation."""
    lengths = np.array([len(arrays["rewards"]) for arrays in raw], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int64)
    acting = np.ones(starts[-1], np.bool_)
    acting[starts[1:] - 1] = False
    last = starts[1:] - 2  # the last transition of each episode

    def seen(key: str) -> FloatArray:
        if key not in raw[0]:
            return np.zeros((len(acting), 0), np.float32)
        return np.concatenate([arrays[key] for arrays in raw]).astype(np.float32)

    def taken(key: str, kind: Any) -> Array:
        rows = np.concatenate([arrays[key] for arrays in raw])
        spread: Array = np.zeros((len(acting), *rows.shape[1:]), kind)
        spread[acting] = rows
        return spread

    def fault(bad: Array, what: str) -> None:
        """`bad` (R,) marks faulty rows."""
        if bad.any():
            row = int(np.argmax(bad))
            index = int(np.searchsorted(starts, row, side="right")) - 1
            raise ToolkitError(f"{path}: episode_{index}: row {row - starts[index]}: {what}")

    obs, achieved, desired = (seen(key) for key in _OBSERVED)
    action, reward = taken("actions", np.float32), taken("rewards", np.float32)
    terminated, truncated = taken("terminations", np.bool_), taken("truncations", np.bool_)
    numbers = np.concatenate([obs, achieved, desired, action, reward[:, None]], axis=1)
    fault(~np.all(np.isfinite(numbers), axis=1), "expected finite numbers, got NaN or infinity")
    ended = terminated | truncated
    ended[last] = False
    fault(ended, "terminated or truncated before the episode's last transition")
    if action.shape[1:] != low.shape:
        raise ToolkitError(
            f"{path}: actions: expected {low.shape} numbers as the action space has, got {action.shape[1:]}"
        )
    middle, half = (high + low) / 2, (high - low) / 2  # 0 and 1 change no bit
    action = np.where(acting[:, None], (action - middle) / half, 0).astype(np.float32)
    fault(np.any(np.abs(action) > 1 + _ACTION_SLACK, axis=1), "an action outside the bounds of the action space")
    truncated[last] = ~terminated[last]
    return Episodes(obs, achieved, desired, np.clip(action, -1, 1), reward, terminated, truncated, starts)


def _action_bounds(folder: Path, metadata: Json) -> tuple[FloatArray, FloatArray]:
    """Bounds of each number of an action, (A,), from the recorded action space."""
    try:
        space = json.loads(metadata["action_space"])
        low, high = (np.array(space[key], np.float32) for key in ("low", "high"))
        usable = space["type"] == "Box" and low.ndim == 1 and low.shape == high.shape
        usable = usable and bool(np.isfinite(high - low).all() and (high > low).all())
    except (KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise ToolkitError(f"{folder}: action_space: expected a Box of one axis with finite bounds")
    return low, high

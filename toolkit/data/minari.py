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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.finding import errors
from toolkit.data.imported import Dropped, Imported, Source, acting, checked, count_ends, scaled
from toolkit.data.minari_shapes import OBSERVED, TAKEN, shape_findings
from toolkit.data.untrusted_hdf5 import UntrustedFile
from toolkit.files import sha256
from toolkit.types import Array, Episodes, FloatArray, Json, ToolkitError

MAIN_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"
MAX_EPISODES = 10_000_000
PART = 1 << 18  # rows to read at once where a data set may be large
MAX_METADATA_BYTES = 16 * 2**20
_ID = re.compile(r"(?:[A-Za-z0-9][-\w]*/)*[A-Za-z0-9][-\w]*-v[0-9]{1,6}", re.ASCII)
_NOT_READ: Array = np.zeros(0)


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

    Dict observations with `observation`, `achieved_goal` and `desired_goal`, or plain ones (then G is 0); goals that
    are Dicts themselves, as FrankaKitchen's are, are left out. Actions come back scaled to [-1, 1]. An episode whose
    last step has no flag counts as truncated. Raises ToolkitError that names the file, the episode and what was
    expected, for anything else than that.
    """
    folder = Path(dataset)
    if not (folder / "data").is_dir():
        folder = dataset_path(str(dataset), root)
    return checked(import_minari(folder))


def import_minari(folder: Path) -> Imported:
    """The data set in `folder` as it is, with whatever is wrong in its episodes.

    Raises ToolkitError where there is nothing to go by: no file, an unknown action space, damage, hostility.
    """
    (everything,) = minari_parts(folder)
    return everything


def minari_parts(folder: Path, rows: int | None = None) -> Iterator[Imported]:
    """The same in parts, one in memory at a time: whole episodes of `rows` rows together, or a few more."""
    file = folder / "data" / MAIN_FILE
    metadata = read_metadata(folder)
    total = metadata.get("total_episodes")
    if not isinstance(total, int) or not 0 < total <= MAX_EPISODES:
        raise ToolkitError(f"{folder}: total_episodes: expected 1 to {MAX_EPISODES}, got {total!r}")
    low, high = _action_bounds(folder, metadata)
    inside(folder, file)
    if "sha256" in metadata and file.is_file() and metadata["sha256"] != sha256(file):
        raise ToolkitError(
            f"{file}: its bytes differ from those recorded in {METADATA_FILE}: damaged, or changed since; "
            'collect it again, or remove "sha256" there if the change was meant'
        )
    with UntrustedFile(file) as opened:
        raw, held = [], 0
        for index in range(total):
            raw.append(_read_episode(opened, index))
            held += max((len(array) for array in raw[-1].values()), default=0)
            if index + 1 == total or (rows is not None and held >= rows):
                yield _imported(file, metadata, raw, index + 1 - len(raw), low, high)
                raw, held = [], 0
                opened.let_go()


def _imported(
    file: Path, metadata: Json, raw: list[dict[str, Array]], first: int, low: FloatArray, high: FloatArray
) -> Imported:
    """Episodes `first` and following from their arrays."""
    findings = shape_findings(raw, first)
    broken = {finding.episode for finding in errors(findings)}
    numbers = np.array([first + place for place in range(len(raw)) if first + place not in broken], np.int64)
    sound = [raw[number - first] for number in numbers]
    if not sound:
        raise ToolkitError(f"{file}: {findings[0]}, and no episode is as expected")
    width = sound[0]["actions"].shape[1:]
    if width != low.shape:
        raise ToolkitError(f"{file}: actions: expected {low.shape} numbers as the action space has, got {width}")
    episodes = _pack(sound, low, high)
    dropped = (Dropped(len(broken), "episodes", "not as expected; see the findings"),) * bool(broken)
    source = Source(file, "minari", count_ends(episodes), numbers, dropped, **_about(metadata))
    return Imported(episodes, source, tuple(findings))


def inside(folder: Path, file: Path) -> None:
    """Raises ToolkitError where links lead `file` out of `folder`."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ToolkitError(f"{file}: a link out of the data set's folder; refused (a copy is fine)")


def read_metadata(folder: Path) -> Json:
    """The metadata of the data set in `folder`, unparsed beyond JSON. Raises ToolkitError."""
    path = folder / "data" / METADATA_FILE
    inside(folder, path)
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
    """The arrays of one episode by name, as far as they are there; plain observations are called `observation`."""
    name = f"episode_{index}"
    group = file.group(name)
    there = file.keys(group, ".") or []
    arrays = {}
    if "observations" in there:
        keys = file.keys(group, "observations")
        if keys is None:
            arrays["observation"] = file.read(group, "observations", name)
        else:
            for key in OBSERVED:
                path = f"observations/{key}"
                if key in keys and (key == "observation" or file.shape(group, path)):  # a group of goals has none
                    arrays[key] = file.read(group, path, name)
            # goals under other names are looked for by name alone
            arrays |= {key: _NOT_READ for key in keys if "goal" in key and key not in OBSERVED}
    return arrays | {key: file.read(group, key, name) for key in TAKEN if key in there}


def _pack(raw: list[dict[str, Array]], low: FloatArray, high: FloatArray) -> Episodes:
    """All episodes back to back; a final row holds zeros where there is only an observation."""
    lengths = np.array([len(arrays["rewards"]) for arrays in raw], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int64)
    rows = acting(starts)

    def seen(key: str) -> FloatArray:
        if key not in raw[0]:
            return np.zeros((len(rows), 0), np.float32)
        return np.concatenate([arrays[key] for arrays in raw]).astype(np.float32)

    def taken(key: str, kind: Any) -> Array:
        there = np.concatenate([arrays[key] for arrays in raw])
        spread: Array = np.zeros((len(rows), *there.shape[1:]), kind)
        spread[rows] = there
        return spread

    return Episodes(
        obs=seen("observation"),
        achieved=seen("achieved_goal"),
        desired=seen("desired_goal"),
        action=np.where(rows[:, None], scaled(taken("actions", np.float32), low, high), 0).astype(np.float32),
        reward=taken("rewards", np.float32),
        terminated=taken("terminations", np.bool_),
        truncated=taken("truncations", np.bool_),
        starts=starts,
    )


def _about(metadata: Json) -> dict[str, Any]:
    """What the metadata tells people: environment, time limit, versions. Texts are cut, nothing is made of them."""
    try:
        spec = json.loads(metadata.get("env_spec") or "{}")
        env_id, limit = spec.get("id"), spec.get("max_episode_steps")
    except (TypeError, ValueError, AttributeError, RecursionError):
        env_id = limit = None
    made = metadata.get("toolkit")
    sources = made.get("sources") if isinstance(made, dict) and made.get("command") != "relabel" else None
    told = sources if isinstance(sources, list) else []
    paid = [not isinstance(source, dict) or source.get("rewards", True) for source in told]
    named = metadata.get("requirements")
    pinned = [text.partition("==") for text in named if isinstance(text, str)] if isinstance(named, list) else []
    return {
        "env_id": env_id[:100] if isinstance(env_id, str) else None,
        "max_steps": limit if isinstance(limit, int) and limit > 0 else None,
        "versions": {name[:50]: version[:50] for name, equals, version in pinned[:50] if equals},
        "rewarded": any(paid) or not paid,
    }


def _action_bounds(folder: Path, metadata: Json) -> tuple[FloatArray, FloatArray]:
    """Bounds of each number of an action, (A,), from the recorded action space."""
    try:
        space = json.loads(metadata["action_space"])
        low, high = (np.array(space[key], np.float32) for key in ("low", "high"))
        usable = space["type"] == "Box" and low.ndim == 1 and low.shape == high.shape
        usable = usable and bool(np.isfinite(high - low).all() and (high > low).all())
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        usable = False
    if not usable:
        raise ToolkitError(f"{folder}: action_space: expected a Box of one axis with finite bounds")
    return low, high

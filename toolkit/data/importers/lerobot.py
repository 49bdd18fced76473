"""LeRobot data sets, v2.1 (a Parquet file an episode) and v3.0 (many episodes a file); needs the extra `lerobot`.

`meta/info.json` says where files lie; its templates are filled with whole numbers only, and nothing outside the data
set's folder is opened. Observations are the flat `observation.*` features, `observation.state` first; pictures and
videos are left out. A frame is what was seen before an action, so the last one of an episode that does not terminate
closes it and its action is dropped.

`next.success` says which episodes terminate. Without it `next.done` does, unless it ends every episode: then it only
marks where recordings end. A data set without `next.reward` has no rewards.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.imported import Imported, Source
from toolkit.data.importers.options import Options, actions
from toolkit.data.importers.rows import Rows, flags, flat, pack, table
from toolkit.data.untrusted_hdf5 import allowed_bytes
from toolkit.types import Array, Json, ToolkitError

MAX_INFO_BYTES = 2**22
MAX_FILES = 1_000_000
_FIELD = re.compile(r"\{(\w+)(?::(0?\d{1,2})d)?\}", re.ASCII)
_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_OPTIONAL = ("next.reward", "next.done", "next.success")


def read(path: Path, options: Options) -> Imported:
    """The episodes of a LeRobot data set's folder. Raises ToolkitError."""
    reader = _Reader(path)
    seen = reader.observed
    names = ["episode_index", *seen, "action", *(name for name in _OPTIONAL if name in reader.features)]
    parts = [reader.read(file, names) for file in reader.files()]
    if not parts:
        raise ToolkitError(f"{path}: expected at least one file of frames, found none")
    for part, name in itertools.product(parts, names):
        if part[name].shape[1:] != parts[0][name].shape[1:]:
            raise ToolkitError(f"{path}: {name}: expected rows of equally many numbers in every file")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in names}
    episode = flat(arrays["episode_index"], "episode_index", path).astype(np.int64)
    last = np.append(episode[1:] != episode[:-1], True)
    notes = [f"observations are {', '.join(seen)}"]
    rewarded = "next.reward" in arrays
    reward = flat(arrays["next.reward"], "next.reward", path) if rewarded else np.zeros(len(episode), np.float32)
    terminated = np.zeros(len(episode), np.bool_)
    if "next.success" in arrays:
        terminated = last & flags(arrays["next.success"], "next.success", path)
    elif "next.done" in arrays:
        done = flags(arrays["next.done"], "next.done", path)
        if done[last].all():
            notes.append("next.done ends every episode: it marks the end of the recording, no episode terminates")
        else:
            terminated = last & done
    none = np.zeros((len(episode), 0), np.float32)
    rows = Rows(
        obs=np.concatenate([table(_column(arrays[name]), name, path) for name in seen], axis=1),
        achieved=none,
        desired=none,
        action=actions(_column(arrays["action"]), path, options),
        reward=reward,
        terminated=terminated,
        truncated=last & ~terminated,
        last=last,
    )
    if len(np.unique(episode[last])) != int(last.sum()):
        raise ToolkitError(f"{path}: episode_index: expected the frames of an episode together, found them apart")
    source = Source(path, "lerobot", {}, np.zeros(0, np.int64), notes=tuple(notes), rewarded=rewarded)
    return pack(rows, source, episode[last])


class _Reader:
    """A data set's folder: what it holds and where."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._given = folder
        info = _json(self.inside("meta/info.json"))
        features = info.get("features")
        if not isinstance(features, dict) or "action" not in features:
            raise ToolkitError(
                f"{folder}: meta/info.json: features: expected those of a LeRobot data set with 'action'"
            )
        self.features = features
        self._info = info
        self._version = str(info.get("codebase_version", ""))[:10]
        if not self._version.startswith(("v2.", "v3.")):
            raise ToolkitError(f"{folder}: codebase_version: expected v2.x or v3.x, got {self._version!r}")
        self._left = allowed_bytes(sum(file.stat().st_size for file in self._folder.glob("data/**/*.parquet")))

    @property
    def observed(self) -> list[str]:
        """Features of flat numbers that are observed."""
        names = [
            name
            for name, about in self.features.items()
            if name.startswith("observation.")
            and isinstance(about, dict)
            and str(about.get("dtype")).startswith(("float", "int"))
            and isinstance(about.get("shape"), list)
            and len(about["shape"]) == 1
        ]
        if not names:
            raise ToolkitError(f"{self._given}: expected a feature observation.* of flat numbers, found none")
        return sorted(names, key=lambda name: (name != "observation.state", name))

    def files(self) -> Iterator[Path]:
        """Files of frames, in the order of their episodes."""
        template = self._info.get("data_path", _V3)
        if self._version.startswith("v3."):
            metas = sorted(self._folder.glob("meta/episodes/chunk-*/file-*.parquet"))
            columns = ["data/chunk_index", "data/file_index"]
            places = set()
            for meta in metas:
                found = self.read(self.inside(str(meta.relative_to(self._folder))), columns)
                numbers = (flat(found[name], name, meta).astype(np.int64).tolist() for name in columns)
                places |= set(zip(*numbers, strict=True))
            for chunk, file in sorted(places):
                yield self.inside(filled(template, {"chunk_index": chunk, "file_index": file}))
            return
        total, size = self._info.get("total_episodes"), self._info.get("chunks_size", 1000)
        if not (isinstance(total, int) and 0 < total <= MAX_FILES and isinstance(size, int) and size > 0):
            raise ToolkitError(f"{self._given}: total_episodes: expected 1 to {MAX_FILES}, got {total!r}")
        for episode in range(total):
            yield self.inside(filled(template, {"episode_chunk": episode // size, "episode_index": episode}))

    def inside(self, name: str) -> Path:
        """The file of that name, if it lies in the folder, links followed."""
        try:
            path = (self._folder / name).resolve()
        except ValueError as error:  # characters that no name of a file has
            raise ToolkitError(f"{self._given}: {name!r}: expected the name of a file; {error}") from None
        if not path.is_relative_to(self._folder):
            raise ToolkitError(f"{self._given}: {name!r} leads out of the data set's folder; refused (copies are fine)")
        if not path.is_file():
            raise ToolkitError(f"{self._given}: expected the file {name}, which is not there")
        return path

    def read(self, path: Path, names: list[str]) -> dict[str, Array]:
        """Columns of a file by name, as (N,) or (N, width)."""
        arrow = _arrow()
        try:
            file = arrow.parquet.ParquetFile(path, memory_map=False)
            known = {name: file.schema_arrow.field(name).type for name in names}
            self._take(path, file, names)
            columns = file.read(columns=names)
            return {name: _numbers(path, name, columns.column(name)) for name in known}
        except (OSError, ValueError, MemoryError, arrow.ArrowException) as error:  # some of Arrow's are KeyErrors too
            raise ToolkitError(f"{path}: expected a readable Parquet file; {str(error)[:200]}") from None
        except KeyError as error:
            raise ToolkitError(f"{path}: expected a column {error.args[0]}") from None

    def _take(self, path: Path, file: Any, names: list[str]) -> None:
        """Count what the wanted columns declare before they are read."""
        about = file.metadata
        for group in range(about.num_row_groups):
            for place in range(about.num_columns):
                column = about.row_group(group).column(place)
                if column.path_in_schema.removesuffix(".list.element").removesuffix(".list.item") in names:
                    self._left -= max(column.total_uncompressed_size, 8 * column.num_values, 0)
        self._left -= 8 * max(about.num_rows, 0)
        if self._left < 0:
            raise ToolkitError(f"{path}: declares more data than files of this size can hold; refused")


def filled(template: Any, numbers: dict[str, int]) -> str:
    """A path template with whole numbers in place of {name} and {name:03d}; nothing else is understood."""
    if not isinstance(template, str) or len(template) > 500:
        raise ToolkitError("meta/info.json: data_path: expected a short text")
    unknown = [field for field, _ in _FIELD.findall(template) if field not in numbers]
    if unknown or re.search(r"[{}]", _FIELD.sub("", template)):
        raise ToolkitError(
            f"meta/info.json: data_path {template!r}: expected only {', '.join('{' + name + '}' for name in numbers)} "
            "with a width such as :03d; refused"
        )
    return _FIELD.sub(lambda field: format(numbers[field[1]], f"{field[2] or ''}d"), template)


def _column(rows: Array) -> Array:
    """A feature of one number, which is stored as (N,), as (N, 1); others as they are."""
    return rows[:, None] if rows.ndim == 1 else rows


def _numbers(path: Path, name: str, column: Any) -> Array:
    """An Arrow column of numbers, or of lists of equally many, as an array."""
    whole = column.combine_chunks()
    rows = len(whole)
    if whole.null_count:
        raise ToolkitError(f"{path}: {name}: expected a number in every row, found empty ones")
    is_list = hasattr(whole, "flatten") and "list" in str(whole.type)
    values = (whole.flatten() if is_list else whole).to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub" or (rows and len(values) % rows):
        raise ToolkitError(f"{path}: {name}: expected rows of equally many numbers, got {whole.type}")
    if is_list and rows and (np.asarray(whole.value_lengths()) != len(values) // rows).any():
        raise ToolkitError(f"{path}: {name}: expected rows of equally many numbers")
    found: Array = values.reshape(rows, -1) if is_list else values
    return found


def _arrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ToolkitError(
            'LeRobot data sets need pyarrow: pip install "offline2online-toolkit[lerobot]", or pip install pyarrow'
        ) from None
    return pyarrow


def _json(path: Path) -> Json:
    try:
        if path.stat().st_size > MAX_INFO_BYTES:
            raise ToolkitError(f"{path}: expected at most {MAX_INFO_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ToolkitError(f"{path}: expected JSON; {error}") from None
    if not isinstance(found, dict):
        raise ToolkitError(f"{path}: expected a JSON object")
    return found

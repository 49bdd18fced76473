"""Metrics of a run: a JSONL file, the source of truth, and TensorBoard files beside it (level 0)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from toolkit.types import Json, ToolkitError


class MetricsLog:
    """Appends one JSON object a line: phase, step and what was measured there.

    A line depends on its values alone (sorted keys, no clock), so a run that was killed and resumed from a
    checkpoint leaves the same bytes as one that was not: the checkpoint keeps `offset`, and the resumed log cuts
    the file there before it goes on. Without `offset` the file starts empty.
    """

    def __init__(self, path: Path | str, offset: int = 0) -> None:
        """Open `path` for writing after its first `offset` bytes; ToolkitError if it holds fewer."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < offset:
            raise ToolkitError(
                f"{self.path}: holds {size} bytes, its checkpoint recorded {offset}; expected the file as the "
                "checkpoint left it: run the stage again from its start (--from STAGE)"
            )
        self._file = open(self.path, "r+b" if offset else "wb")  # noqa: SIM115 lives as long as the log
        self._file.truncate(offset)
        self._file.seek(offset)

    def write(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line. A value is a number or one per seed, (S,): list, array or tensor; NaN becomes null."""
        if reserved := {"phase", "step"} & values.keys():
            raise ValueError(f"metric names {sorted(reserved)} are taken by the line itself")
        row = {"phase": phase, "step": int(step)} | {name: _plain(value) for name, value in values.items()}
        line = json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
        self._file.write(line.encode())
        self._file.flush()

    @property
    def offset(self) -> int:
        """Bytes written so far, safe on disk: what a checkpoint keeps."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """Numbers and nested lists of numbers that JSON can hold."""
    if hasattr(value, "tolist"):  # arrays and tensors
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int):
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        return None
    # A single-precision number is written with the digits it has: 0.3, not 0.30000001192092896.
    single = np.float32(number) if abs(number) < 3e38 else number
    return float(str(single)) if float(single) == number else number


def read_metrics(path: Path | str) -> list[Json]:
    """Rows of a metrics file, null read as NaN. A last line that a kill cut short is left out; no file, no rows."""
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row["phase"], str) or not isinstance(row["step"], int):
                raise ValueError
        except (ValueError, KeyError):
            raise ToolkitError(
                f'{path}:{number}: expected a JSON object with "phase" and "step", got {line[:60]!r}; '
                "run the stage again, or delete the line"
            ) from None
        rows.append({name: _with_nan(value) for name, value in row.items()})
    return rows


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def series(rows: Iterable[Json], name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Steps (n,) and values (n, S) of one metric, in the order of the rows that hold it.

    Rows with another number of seeds than the first are left out.
    """
    found = [(row["step"], np.atleast_1d(np.asarray(row[name], np.float64))) for row in rows if name in row]
    found = [(step, value) for step, value in found if value.ndim == 1 and value.shape == found[0][1].shape]
    if not found:
        return np.zeros(0, np.int64), np.zeros((0, 0))
    return np.array([step for step, _ in found], np.int64), np.stack([value for _, value in found])


# Our names to those Stable-Baselines3 writes, so that runs of both line up in one TensorBoard.
TENSORBOARD_TAGS = {
    "eval/success": "eval/success_rate",
    "eval/return": "eval/mean_reward",
    "eval/steps": "eval/mean_ep_length",
    "rollout/success": "rollout/success_rate",
    "rollout/return": "rollout/ep_rew_mean",
    "rollout/steps": "rollout/ep_len_mean",
    "loss/pi": "train/actor_loss",
    "loss/Q": "train/critic_loss",
    "temperature": "train/ent_coef",
}


def tensorboard_tag(name: str) -> str:
    """Where TensorBoard shows a metric: SB3's tag if there is one, else ours; plain names go under `train/`."""
    if name in TENSORBOARD_TAGS:
        return TENSORBOARD_TAGS[name]
    if name.startswith("loss/"):
        return f"train/{name.removeprefix('loss/')}_loss"
    return name if "/" in name else f"train/{name}"


class TensorBoardLog:
    """One run per seed under `ROOT/PHASE/STAGE/seedK`, so that gradient and environment steps never share an axis.

    Writes without a thread of its own. After a resume, `purge_step` tells TensorBoard to drop what earlier files
    hold from that step on.
    """

    def __init__(
        self, root: Path | str, phase: str, stage: str, seeds: Sequence[int], purge_step: int | None = None
    ) -> None:
        folders = [Path(root) / phase / stage / f"seed{seed}" for seed in seeds]
        self._files = [_EventFile(folder, purge_step) for folder in folders]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add scalars under SB3's tags; a value is a number (every seed's) or one per seed, (S,)."""
        columns = {tensorboard_tag(name): np.asarray(_plain(v), np.float64) for name, v in values.items()}
        for index, file in enumerate(self._files):
            scalars = {tag: float(v if v.ndim == 0 else v[index]) for tag, v in columns.items()}
            file.add(step, {tag: value for tag, value in scalars.items() if math.isfinite(value)})

    def close(self) -> None:
        """Close the files; nothing is lost without it."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _EventFile:
    """TensorBoard's record format, written as it comes."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2, summary_pb2
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names, so those carry a count, not a clock.
        number = len(list(folder.glob("events.out.tfevents.*")))
        self._records = RecordWriter(open(folder / f"events.out.tfevents.{number:06d}", "xb"))  # noqa: SIM115
        self._append(file_version="brain.Event:2")
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._append(step=purge_step, session_log=start)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(scalars.items())]
        if values:
            self._append(step=step, summary=self._summary.Summary(value=values))

    def _append(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()

    def close(self) -> None:
        self._records.close()

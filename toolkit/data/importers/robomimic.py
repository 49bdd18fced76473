"""robomimic's HDF5 files: a group `data/demo_<k>` for each demonstration.

Layout: `actions` (N, A) within [-1, 1] or the bounds that a user gives, `rewards`, `dones` (N,), `obs/<key>` (N, d),
where they are there `next_obs/<key>`, and `states` (N, D), which stand in where a file has no observations.
`mask/<name>` lists demonstrations. All keys of flat numbers are joined by name; pictures are left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.imported import Dropped, Imported, Source
from toolkit.data.importers.options import Options, actions
from toolkit.data.importers.rows import Rows, flags, flat, pack, table
from toolkit.data.untrusted_hdf5 import UntrustedFile
from toolkit.types import Array, FloatArray, ToolkitError

_DEMO = re.compile(r"demo_([0-9]{1,9})", re.ASCII)


class Demo(NamedTuple):
    """One demonstration."""

    obs: FloatArray
    after: FloatArray | None
    action: FloatArray
    reward: FloatArray
    done: Any


def read(path: Path, options: Options) -> Imported:
    """The demonstrations, in the order of their numbers. Raises ToolkitError.

    `dones` mean success, the end of the demonstration or both, by how the file was converted: a step is terminal only
    where it is done and paid for. A demonstration ends at the first such step; what follows is dropped.
    """
    with UntrustedFile(path) as file:
        group = file.group("data")
        numbers = sorted(int(found[1]) for key in file.keys(group, ".") or () if (found := _DEMO.fullmatch(key)))
        if options.part is not None:
            chosen = set(file.words(file.root, f"mask/{options.part}", "/"))
            numbers = [number for number in numbers if f"demo_{number}" in chosen]
        if not numbers:
            raise ToolkitError(f"{path}: expected demonstrations data/demo_<number>, found none")
        keys, left_out = _observed(file, group, numbers[0])
        demos = [_demo(file, group, number, keys, options) for number in numbers]
        env_id = _env_name(file.text(group, "env_args"))
    notes = [
        f"observations are {', '.join(keys)}" if keys else "no observations: the simulator's states stand for them"
    ]
    if left_out:
        notes.append(f"not read: {', '.join(left_out)}")
    demos, lost = zip(*map(_until_success, demos), strict=True)
    widths = {(demo.obs.shape[1], demo.action.shape[1], demo.after is None) for demo in demos}
    if len(widths) > 1:
        raise ToolkitError(
            f"{path}: expected demonstrations of the same widths with the same arrays, got {len(widths)} kinds"
        )
    source = Source(
        path,
        "robomimic",
        {},
        np.zeros(0, np.int64),
        dropped=(Dropped(sum(lost), "steps", "after the first success of their demonstration"),) * any(lost),
        notes=tuple(notes),
        env_id=env_id,
    )
    return pack(_rows(demos), source, np.array(numbers, np.int64))


def _observed(file: UntrustedFile, group: Any, number: int) -> tuple[list[str], list[str]]:
    """Keys of flat numbers in a demonstration's observations, and the others."""
    name = f"demo_{number}"
    if "obs" not in (file.keys(group, name) or ()):
        return [], []
    keys = sorted(file.keys(group, f"{name}/obs") or ())
    kept = [key for key in keys if len(file.shape(group, f"{name}/obs/{key}")) == 2]
    if not kept:
        raise ToolkitError(f"{file.path}: {name}/obs: expected flat observations, (N, d); found {keys}")
    return kept, [key for key in keys if key not in kept]


def _demo(file: UntrustedFile, group: Any, number: int, keys: list[str], options: Options) -> Demo:
    name = f"demo_{number}"
    there = file.keys(group, name) or []

    def read(key: str) -> FloatArray:
        return table(file.read(group, f"{name}/{key}", "data"), f"{name}/{key}", file.path)

    def stored(key: str) -> tuple[Array, str, Path]:
        return file.read(group, f"{name}/{key}", "data"), f"{name}/{key}", file.path

    def joined(part: str) -> FloatArray:
        rows = [read(f"{part}/{key}") for key in keys]
        if len({len(array) for array in rows}) > 1:
            raise ToolkitError(f"{file.path}: {name}/{part}: expected arrays of the same length")
        return np.concatenate(rows, axis=1)

    obs = joined("obs") if keys else read("states")
    # the layout has [-1, 1], whatever the bounds of the task's own simulator are
    own = options if options.said else replace(options, bounds=Options.bounds)
    action = actions(stored("actions")[0], f"{file.path}: {name}", own)
    count = len(action)
    reward = flat(*stored("rewards")) if "rewards" in there else np.zeros(count, np.float32)
    done = flags(*stored("dones")) if "dones" in there else np.zeros(count, np.bool_)
    after = joined("next_obs") if keys and "next_obs" in there else None
    if not len(obs) == count == len(reward) == len(done) == (count if after is None else len(after)) or not count:
        raise ToolkitError(f"{file.path}: {name}: expected as many observations as actions, rewards and dones")
    if after is not None and after.shape != obs.shape:
        raise ToolkitError(f"{file.path}: {name}/next_obs: expected shape {obs.shape} as obs, got {after.shape}")
    return Demo(obs, after, action, reward, done)


def _until_success(demo: Demo) -> tuple[Demo, int]:
    """The demonstration up to its first success, and how many steps come after it."""
    success = np.flatnonzero(demo.done & (demo.reward > 0))
    end = int(success[0]) + 1 if len(success) else len(demo.reward)
    after = None if demo.after is None else demo.after[:end]
    cut = Demo(demo.obs[:end], after, demo.action[:end], demo.reward[:end], demo.done[:end])
    return cut, len(demo.reward) - end


def _rows(demos: tuple[Demo, ...]) -> Rows:
    keys = ("obs", "action", "reward", "done")
    obs, action, reward, done = (np.concatenate([getattr(demo, key) for demo in demos]) for key in keys)
    none = np.zeros((len(obs), 0), np.float32)
    after = None if demos[0].after is None else np.concatenate([d.after for d in demos if d.after is not None])
    last = np.zeros(len(obs), np.bool_)
    last[np.cumsum([len(demo.reward) for demo in demos]) - 1] = True
    terminated = last & done & (reward > 0)
    outcome = None if after is None else (after, none, none)
    return Rows(obs, none, none, action, reward, terminated, last & ~terminated, last, outcome)


def _env_name(text: str | None) -> str | None:
    """The environment's name, to be shown; it is never made."""
    try:
        name = json.loads(text or "{}").get("env_name")
    except (ValueError, AttributeError, RecursionError):
        return None
    return name[:100] if isinstance(name, str) else None

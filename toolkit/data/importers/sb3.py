"""Stable-Baselines3 replay buffers, `model.save_replay_buffer(...)`: a pickle, so a program.

Nothing of it is looked at by default. With `trust_pickle` another process loads it, as the same user, and hands over
arrays (size, environments, ...), which are read here. Actions in a buffer are scaled to [-1, 1] already. Each
environment is one stream; in a full buffer it begins at `pos`. A step is terminal where `dones` is set and `timeouts`
is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import toolkit
from toolkit.data.imported import Imported, Source, scaled
from toolkit.data.importers.options import Options
from toolkit.data.importers.rows import Rows, pack, table
from toolkit.data.untrusted_npz import read_npz
from toolkit.types import Array, FloatArray, IntArray, ToolkitError

_SEEN = ("observation", "achieved_goal", "desired_goal")


def read(path: Path, options: Options) -> Imported:
    """The episodes in a buffer, the last of each environment cut where it was going on. Raises ToolkitError."""
    if not options.trust_pickle:
        raise ToolkitError(
            f"{path}: a pickle runs code when it is opened; refused. If it is your own, `toolkit data convert {path} "
            "mine/buffer-v0 --trust-pickle` makes a data set of it"
        )
    with tempfile.TemporaryDirectory(prefix="unpickled-") as folder:
        out = Path(folder) / "arrays.npz"
        paths = [str(Path(toolkit.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-P", "-m", "toolkit.data.importers.unpickle", str(path.resolve()), str(out)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode or not out.is_file():
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise ToolkitError(f"{path}: expected a Stable-Baselines3 replay buffer; {lines[-1][:300]}")
        arrays = read_npz(out)
    return from_buffer(path, arrays)


def from_buffer(path: Path, arrays: dict[str, Array]) -> Imported:
    """Episodes of a buffer's arrays."""
    missing = {"actions", "rewards", "dones", "pos", "full"} - set(arrays)
    if missing:
        raise ToolkitError(f"{path}: expected a replay buffer, found no {sorted(missing)[0]!r}")
    if "choices" in arrays:
        raise ToolkitError(f"{path}: expected a Box of actions, got {int(arrays['choices'][0])} discrete ones")
    size, lean = len(arrays["rewards"]), not any(name.startswith("next_observations") for name in arrays)
    pos, full = int(arrays["pos"][0]), bool(arrays["full"][0])
    # a lean buffer holds the newest outcome in the place of the oldest observation
    order = (pos + np.arange(int(lean), size)) % size if full else np.arange(pos)
    if not len(order):
        raise ToolkitError(f"{path}: expected at least one step, got none")
    buffer = _Buffer(path, arrays)
    done = buffer.streams("dones", order) != 0
    timeout = buffer.streams("timeouts", order) != 0 if "timeouts" in arrays else np.zeros_like(done)
    last = done.copy()
    last[len(order) - 1 :: len(order)] = True
    notes = [f"{len(order)} steps of each environment, in the order of recording", "actions are scaled already"]
    if lean:
        notes.append("a buffer of optimize_memory_usage: it holds no timeouts, every done counts as terminal")
    rows = Rows(
        *buffer.seen("observations", order),
        action=scaled(table(buffer.streams("actions", order), "actions", path)),
        reward=buffer.streams("rewards", order).astype(np.float32),
        terminated=done & ~timeout,
        truncated=done & timeout,
        last=last,
        # after a done, a lean buffer has only the next episode's first observation; no value is taken from it
        after=buffer.seen("observations", (order + 1) % size) if lean else buffer.seen("next_observations", order),
    )
    return pack(rows, Source(path, "sb3", {}, np.zeros(0, np.int64), notes=tuple(notes)))


class _Buffer(NamedTuple):
    """Arrays of (size, environments, ...), read one environment after the other."""

    path: Path
    arrays: dict[str, Array]

    def streams(self, name: str, rows: IntArray) -> Array:
        """Those rows of each environment, (environments * rows, ...)."""
        stored, expected = self.arrays[name], self.arrays["rewards"].shape
        if len(expected) != 2 or stored.shape[:2] != expected:
            raise ToolkitError(f"{self.path}: {name}: expected shape (size, environments, ...), got {stored.shape}")
        return np.concatenate([stored[rows, env] for env in range(expected[1])])

    def seen(self, name: str, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Observations, achieved and desired goals."""
        keys = {key: f"{name}.{key}" for key in _SEEN if f"{name}.{key}" in self.arrays}
        if name in self.arrays:
            keys = {"observation": name}
        if "observation" not in keys:
            raise ToolkitError(f"{self.path}: {name}: expected numbers, or a Dict with 'observation'")
        found = {key: table(self.streams(stored, rows), key, self.path) for key, stored in keys.items()}
        none = np.zeros((len(found["observation"]), 0), np.float32)
        return found["observation"], found.get("achieved_goal", none), found.get("desired_goal", none)

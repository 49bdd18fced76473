"""Episodes as other projects store them: Minari without a simulator at hand, OGBench's .npz, D4RL's HDF5."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from toolkit.data.imported import acting
from toolkit.data.minari_writer import RecordedEpisode, write_minari
from toolkit.files import sync
from toolkit.types import Episodes, FloatArray, Json, ToolkitError

Bounds: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]  # () or (A,) each


def to_minari(
    parts: Iterable[Episodes],
    dataset_id: str,
    root: Path,
    *,
    env_spec: str | None,
    metadata: Json,
    replace: bool = False,
) -> Path:
    """Write a data set `dataset_id` below `root`, as `write_minari` does; its folder. One part at a time is asked for.

    Observations are a Dict with goals, or plain where there are none; actions lie in [-1, 1]. `env_spec` is the JSON of
    an environment's specification that is known, never one that came out of a file.
    """
    from gymnasium.spaces import Box, Dict

    def unbounded(width: int) -> Box:
        return Box(-np.inf, np.inf, (width,), np.float32)

    parts = iter(parts)
    first = next(parts)
    seen = unbounded(first.obs.shape[1])
    goals = unbounded(first.achieved.shape[1])
    with_goals = Dict({"observation": seen, "achieved_goal": goals, "desired_goal": goals})
    return write_minari(
        chain.from_iterable(map(_recorded, chain([first], parts))),
        dataset_id,
        root,
        observation_space=with_goals if goals.shape[0] else seen,
        action_space=Box(-1, 1, first.action.shape[1:], np.float32),
        env_spec=env_spec,
        metadata=metadata,
        replace=replace,
    )


def _recorded(episodes: Episodes) -> Iterator[RecordedEpisode]:
    goals = {"achieved_goal": episodes.achieved, "desired_goal": episodes.desired} if episodes.achieved.shape[1] else {}
    for begin, end in zip(episodes.starts[:-1].tolist(), episodes.starts[1:].tolist(), strict=True):
        steps = slice(begin, end - 1)
        yield RecordedEpisode(
            seed=None,
            observations={name: rows[begin:end] for name, rows in {"observation": episodes.obs, **goals}.items()},
            actions=episodes.action[steps],
            rewards=episodes.reward[steps].astype(np.float64),
            terminations=episodes.terminated[steps],
            truncations=episodes.truncated[steps],
        )


def to_ogbench(episodes: Episodes, path: Path, bounds: Bounds = (-1.0, 1.0), replace: bool = False) -> Path:
    """Write OGBench's layout: T + 1 states a trajectory, the last marked. Goals, rewards and kinds of ends are lost.

    Actions lie in `bounds`, of which the file holds `action_low` and `action_high` (A,).
    """
    terminals = (~acting(episodes.starts)).astype(np.float32)
    arrays: Json = {"observations": episodes.obs, "terminals": terminals, **_between(episodes.action, bounds)}

    def write(file: Path) -> None:
        with file.open("wb") as out:
            np.savez_compressed(out, **arrays)

    return _whole(path, write, replace)


def to_d4rl(episodes: Episodes, path: Path, bounds: Bounds = (-1.0, 1.0), replace: bool = False) -> Path:
    """Write D4RL's layout with `next_observations`, and what was achieved beside its goals, so that nothing is lost.

    Actions lie in `bounds`, of which the file holds `action_low` and `action_high` (A,).
    """
    rows = np.flatnonzero(acting(episodes.starts))
    actions = _between(episodes.action[rows], bounds)

    def write(file: Path) -> None:
        with h5py.File(file, "w") as out:
            arrays = {
                "observations": episodes.obs[rows],
                "next_observations": episodes.obs[rows + 1],
                **actions,
                "rewards": episodes.reward[rows],
                "terminals": episodes.terminated[rows],
                "timeouts": episodes.truncated[rows],
            }
            if episodes.desired.shape[1]:
                arrays["infos/goal"] = episodes.desired[rows]
                arrays["infos/achieved_goal"] = episodes.achieved[rows]
                arrays["infos/next_achieved_goal"] = episodes.achieved[rows + 1]
            for name, array in arrays.items():
                out.create_dataset(name, data=array, track_times=False)

    return _whole(path, write, replace)


def _between(action: FloatArray, bounds: Bounds) -> dict[str, FloatArray]:
    """Actions (N, A) within [-1, 1] as numbers within `bounds`, and those."""
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), action.shape[1:]) for bound in bounds)
    scaled = ((high + low) / 2 + (high - low) / 2 * action).astype(np.float32)
    return {"actions": scaled, "action_low": low, "action_high": high}


def _whole(path: Path, write: Callable[[Path], None], replace: bool) -> Path:
    """The file appears whole or not at all."""
    if path.is_symlink() or path.is_dir() or (path.exists() and not replace):
        raise ToolkitError(f"{path}: this file exists already; expected a free name, or --replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a run that was killed, or a link
    try:
        write(partial)
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)
    return path

"""Logs of MuJoCo states and controls, played through a task's simulator into episodes (level 3).

A log is an .npz with `qpos` (N, nq), `qvel` (N, nv) and `ctrl` (N, nu), one row a control step, in the task's own model
and order. `terminals` (N,) marks the last state of each trajectory, whose `ctrl` is not used; without it the log is one
trajectory.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from toolkit.data.imported import Imported, Source, count_ends, scaled
from toolkit.data.importers.options import Options
from toolkit.data.untrusted_npz import names, read_npz
from toolkit.tasks import TaskCard, TaskEnv, make_env
from toolkit.types import Array, BoolArray, Episodes, FloatArray, IntArray, ToolkitError

_WANTED = ("qpos", "qvel", "ctrl")


def is_log(path: Path) -> bool:
    """Whether a file holds states and controls and nothing that was observed. Raises ToolkitError."""
    if not zipfile.is_zipfile(path):
        return False
    found = set(names(path))
    return set(_WANTED) <= found and "observations" not in found


def replay(path: Path, card: TaskCard, options: Options) -> Imported:
    """The log's trajectories as the task's simulator sees them.

    Observations are those of the logged states. Where the card leaves rewards and ends to the simulator, it says them
    after playing a row's `ctrl` from the row's state; elsewhere they are left to `relabel`. A note tells how far from
    the logged position that playing ends: far, where the log is of another model or another time between rows. Contact
    forces, which the observations of some robots have, are those before the state was put. Nothing is left open that
    `options` could answer. Raises ToolkitError.
    """
    if options.said or options.achieved or options.part is not None:
        raise ToolkitError(f"{path}: a log of states is played; expected no --action-bounds, --achieved or --filter")
    log = read_npz(path)
    if card.goal.observed or card.physics.noise or card.physics.delay:
        raise ToolkitError(f"{path}: task {card.name}: expected one without shown goals, sensor noise and delay")
    env = make_env(card)
    starts = _starts(path, log, env)
    qpos, qvel = (log[name].astype(np.float64) for name in ("qpos", "qvel"))
    low, high = (np.array(bound) for bound in env.actions.bounds)  # type: ignore[union-attr]
    action = scaled(log["ctrl"], low, high)
    action[starts[1:] - 1] = 0.0

    R = len(qpos)
    obs: FloatArray = np.zeros((R, env.sizes.obs_dim), np.float32)
    achieved: FloatArray = np.zeros((R, env.achieved_dim), np.float32)
    reward: FloatArray = np.zeros(R, np.float32)
    terminated: BoolArray = np.zeros(R, np.bool_)
    last = np.zeros(R, np.bool_)
    last[starts[1:] - 1] = True
    drift = 0.0
    env.reset(seed=0)
    for row in range(R):
        seen = env.put(qpos[row], qvel[row])
        obs[row], achieved[row] = seen["observation"], seen.get("achieved_goal", ())
        if not last[row]:
            _, paid, ended, _, _ = env.step(np.clip(action[row], -1.0, 1.0))
            if card.reward.rule == "env":  # others' rewards and ends are the card's to say, from what is achieved
                reward[row], terminated[row] = paid, ended
            drift = max(drift, float(np.abs(env.qpos() - qpos[row + 1]).max()))
    env.close()
    return _imported(
        path, card, Episodes(obs, achieved, achieved.copy(), action, reward, terminated, last & False, starts), drift
    )


def _starts(path: Path, log: dict[str, Array], env: TaskEnv) -> IntArray:
    """First rows of the trajectories and the end, (E + 1,), of a log that fits the task. Raises ToolkitError."""
    missing = [name for name in _WANTED if name not in log]
    if missing:
        raise ToolkitError(f"{path}: expected {', '.join(_WANTED)}, found no {missing[0]!r}")
    if env.actions.discrete:
        raise ToolkitError(f"{path}: task {env.card.name}: expected one whose actions are numbers, it takes choices")
    for name, width in zip(_WANTED, (*env.state_sizes(), env.actions.dim), strict=True):
        rows, shape = log[name], (*log["qpos"].shape[:1], width)
        if rows.shape != shape:
            raise ToolkitError(f"{path}: {name}: expected {shape} as task {env.card.name} has it, got {rows.shape}")
        if not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
            raise ToolkitError(f"{path}: {name}: expected finite numbers, row {row} has others")
    count = len(log["qpos"])
    terminals = np.asarray(log.get("terminals", np.zeros(count)))
    if terminals.shape != (count,):
        raise ToolkitError(f"{path}: terminals: expected {count} flags, got shape {terminals.shape}")
    ends = np.flatnonzero(terminals) + 1
    starts = np.unique([0, *ends, count]).astype(np.int64)
    short = np.flatnonzero(np.diff(starts) < 2)
    if len(short) or len(starts) < 2:
        at = f"; the trajectory at row {int(starts[short[0]])} has one" if len(short) else ""
        raise ToolkitError(f"{path}: expected trajectories of two states and more{at}")
    return starts


def _imported(path: Path, card: TaskCard, episodes: Episodes, drift: float) -> Imported:
    note = f"played from each state, the simulator's next positions differ from the log's by at most {drift:.2g}"
    source = Source(
        path,
        "mujoco",
        ends=count_ends(episodes),
        numbers=np.arange(len(episodes)),
        notes=(note,),
        env_id=card.env_id,
        max_steps=card.max_episode_steps,
        rewarded=card.reward.rule == "env",
    )
    return Imported(episodes, source)

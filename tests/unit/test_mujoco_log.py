"""Logs of MuJoCo states and controls against the simulators that wrote them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from toolkit.cli import main
from toolkit.data.imported import checked
from toolkit.data.importers.options import Options
from toolkit.data.minari import read_minari
from toolkit.mujoco_log import replay
from toolkit.tasks import load_card
from toolkit.types import ToolkitError

STEPS = (30, 20)
Log = dict[str, Any]


@pytest.fixture(scope="module")
def cheetah() -> tuple[Log, Log]:
    """Two trajectories of HalfCheetah under random controls: what a robot logs, and what its environment said."""
    env: Any = gymnasium.make("HalfCheetah-v5")
    rng = np.random.default_rng(0)
    log: Log = {"qpos": [], "qvel": [], "ctrl": [], "terminals": []}
    said: Log = {"obs": [], "reward": []}
    for seed, steps in enumerate(STEPS):
        obs, _ = env.reset(seed=seed)
        for step in range(steps + 1):
            ctrl = rng.uniform(-1, 1, 6)
            values = (env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy(), ctrl, step == steps)
            for rows, value in zip(log.values(), values, strict=True):
                rows.append(value)
            said["obs"].append(obs)
            if step < steps:
                obs, reward, *_ = env.step(ctrl.astype(np.float32))
                said["reward"].append(reward)
    return {key: np.array(rows) for key, rows in log.items()}, said


def save(folder: Path, log: Log) -> Path:
    np.savez(folder / "log.npz", **log)
    return folder / "log.npz"


def test_a_log_gives_what_the_environment_said(tmp_path: Path, cheetah: tuple[Log, Log]) -> None:
    log, said = cheetah
    imported = replay(save(tmp_path, log), load_card("halfcheetah"), Options())
    episodes = checked(imported)
    assert episodes.lengths.tolist() == list(STEPS)
    np.testing.assert_allclose(episodes.obs, np.array(said["obs"]), atol=1e-6)
    acting = np.ones(len(episodes.reward), bool)
    acting[episodes.starts[1:] - 1] = False
    np.testing.assert_allclose(episodes.reward[acting], said["reward"], atol=1e-4)
    np.testing.assert_allclose(episodes.action[acting], log["ctrl"][acting], atol=1e-6)
    drift = float(imported.source.notes[0].rsplit(" ", 1)[1])
    assert drift < 1e-6


def test_rows_of_another_time_step_show(tmp_path: Path, cheetah: tuple[Log, Log]) -> None:
    log = {key: rows[::2] for key, rows in cheetah[0].items()}  # every second row, as if the robot logged half as often
    log["terminals"] = np.zeros(len(log["qpos"]))
    note = replay(save(tmp_path, log), load_card("halfcheetah"), Options()).source.notes[0]
    assert float(note.rsplit(" ", 1)[1]) > 1e-2


def test_a_ball_in_a_maze_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A ball rolls into the goal: what is achieved comes from the log, reward and end from the card."""
    goal = load_card("pointmaze-umaze").goal_xy
    assert goal is not None
    qpos = goal + np.stack([np.linspace(0.9, 0.0, 10), np.zeros(10)], 1)
    save(tmp_path, {"qpos": qpos, "qvel": np.tile([-10.0, 0.0], (10, 1)), "ctrl": np.zeros((10, 2))})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["toolkit", "data", "relabel", "log.npz", "mine/roll-v0", "--task", "pointmaze-umaze", "--json"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert left.value.code in (0, None), err
    assert json.loads(out)["transitions"] == 5  # 0.9 m away, 0.1 m a step, a radius of 0.45 m
    episodes = read_minari(tmp_path / json.loads(out)["dataset"])
    np.testing.assert_allclose(episodes.achieved[:6], qpos[:6], atol=1e-6)
    assert episodes.terminated.tolist() == [False] * 4 + [True, False]
    assert episodes.reward[:5].tolist() == [-1, -1, -1, -1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qvel": None}, "expected qpos, qvel, ctrl, found no 'qvel'"),
        ({"ctrl": np.zeros((52, 2))}, r"ctrl: expected \(52, 6\) as task halfcheetah has it, got \(52, 2\)"),
        ({"qpos": np.full((52, 9), np.nan)}, "qpos: expected finite numbers, row 0 has others"),
        ({"qpos": np.float64(0)}, r"qpos: expected \(9,\) as task halfcheetah has it, got \(\)"),
        ({"terminals": np.zeros(7)}, "terminals: expected 52 flags"),
        ({"terminals": np.ones(52)}, "expected trajectories of two states and more; the trajectory at row 0 has one"),
        ({"ctrl": np.full((52, 6), 3.0)}, "outside the bounds"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, cheetah: tuple[Log, Log], change: Log, message: str) -> None:
    log = {key: rows for key, rows in {**cheetah[0], **change}.items() if rows is not None}
    with pytest.raises(ToolkitError, match=message):
        checked(replay(save(tmp_path, log), load_card("halfcheetah"), Options()))


@pytest.mark.parametrize(
    ("task", "message"),
    [("fetch-push", "without shown goals"), ("cartpole", "takes choices"), ("pendulum", "whose state can be set")],
)
def test_tasks_that_cannot_play_logs(tmp_path: Path, cheetah: tuple[Log, Log], task: str, message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        replay(save(tmp_path, cheetah[0]), load_card(task), Options())


def test_a_log_leaves_nothing_to_be_said(tmp_path: Path, cheetah: tuple[Log, Log]) -> None:
    for options in (Options(said=True), Options(achieved=slice(0, 2)), Options(part="train")):
        with pytest.raises(ToolkitError, match=r"a log of states is played; expected no --action-bounds"):
            replay(save(tmp_path, cheetah[0]), load_card("halfcheetah"), options)

"""`toolkit evaluate` on a checkpoint: numbers, film and file, through the Python call and through the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit import checkpoint
from toolkit.agents import AGENTS
from toolkit.assess import _ends, curve, evaluate_all, evaluate_run, table
from toolkit.learner import Learner
from toolkit.policy import describe, policy_tensors
from toolkit.report.evaluation import write_curve
from toolkit.tasks import Goal, TaskCard
from toolkit.types import Spec, ToolkitError

CARD = TaskCard(
    name="umaze-test",
    description="A corner",
    env_id="PointMaze_UMaze-v3",
    env_kwargs={"continuing_task": False},
    max_episode_steps=30,
    goal=Goal(cell=(3, 1)),
)


def save(folder: Path, far_starts: list[tuple[int, int]]) -> Path:
    """A checkpoint of an untrained policy of two seeds."""
    kind = AGENTS["bc"]
    learner = Learner(
        kind(kind.Config(hidden=(8,)), Spec(4, 2)),
        [3, 5],
        1,
        compile="off",
        precision="fp32",
        device=torch.device("cpu"),
    )
    tensors = policy_tensors(learner.state, np.zeros(4, np.float32), np.ones(4, np.float32))
    checkpoint.save(folder, tensors, {"policy": describe("bc", learner.agent, CARD, learner.seeds, far_starts)})
    return folder


def test_numbers_film_and_file(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", [(1, 1), (1, 2)])
    summary = evaluate_run(folder, episodes=5, workers=1, out=tmp_path / "out", video=tmp_path / "out" / "film.gif")
    assert (summary["agent"], summary["task"], summary["seeds"], summary["starts"]) == (
        "bc",
        "umaze-test",
        [3, 5],
        "far",
    )
    assert summary["success"]["per_seed"] == [0.0, 0.0]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == summary
    with Image.open(summary["video"]) as film:
        assert film.format == "GIF"
    lines = table(summary)
    assert "5 episodes a seed from far starts, seeds 3, 5" in lines[0]
    assert any(line.startswith("success") for line in lines)
    assert any(line.startswith("path ratio") and "-" in line for line in lines), "nothing to measure where all failed"


def test_every_checkpoint_in_the_order_of_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    (run / "pipeline.yaml").write_text("stages: {second: {}, first: {}, none: {}}\n")
    for name in ("first", "second", "first"):
        save(run / "stages" / name / "checkpoint", [(1, 1)])
    found = evaluate_all(run, episodes=2, workers=1, out=tmp_path / "out")
    places = [(entry["stage"], Path(entry["checkpoint"]).name) for entry in found["checkpoints"]]
    assert places == [("second", "000001"), ("first", "000001"), ("first", "000002")]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
    one = evaluate_run(run / "stages" / "second", episodes=2, workers=1)
    assert found["checkpoints"][0]["return"] == one["return"], "the same episodes"
    lines = curve(found)
    assert len(lines) == 5 and "success 0.000" in lines[2]
    page = write_curve(found, tmp_path / "out").read_text(encoding="utf-8")
    assert "3 checkpoints" in page and "second, 0" in page
    stage = evaluate_all(run / "stages" / "first", episodes=2, workers=1)
    assert [entry["stage"] for entry in stage["checkpoints"]] == ["first", "first"]


def test_best_median_and_worst() -> None:
    table = np.array([[0.0, 1.0, 1.0, 0.0, 1.0]])
    steps = np.array([[30, 20, 10, 30, 15]])
    result = SimpleNamespace(success=table, ret=-steps.astype(float), steps=steps)
    assert _ends(result) == [[2, 1, 3]]  # type: ignore[arg-type]


def test_starts(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", [])
    assert evaluate_run(folder, episodes=1, workers=1)["starts"] == "all"
    with pytest.raises(ToolkitError, match="knows no far starts; use --starts all"):
        evaluate_run(folder, episodes=1, starts="far", workers=1)


def test_from_the_shell(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", [])
    command = [sys.executable, "-m", "toolkit", "evaluate", str(folder), "--episodes", "2"]
    plain = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert plain.stdout.startswith("bc on umaze-test: 2 episodes a seed from all starts")
    as_json = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(as_json.stdout) == evaluate_run(folder, episodes=2, workers=1)


def test_until_the_interval_is_narrow(tmp_path: Path) -> None:
    """A policy that always fails: 50 failures of two seeds leave 0.07 on top, 100 leave 0.04."""
    folder = save(tmp_path / "checkpoint", [(1, 1)])
    summary = evaluate_run(folder, episodes=400, workers=1, until_ci=0.02)
    assert summary["episodes"] == 50
    assert summary["until_ci"] == {"half_width": 0.02, "reached": True, "most": 400}
    whole = evaluate_run(folder, episodes=50, workers=1)
    assert {key: summary[key] for key in whole} == whole, "the same episodes as in one go"
    short = evaluate_run(folder, episodes=30, workers=1, until_ci=0.02)
    assert (short["episodes"], short["until_ci"]["reached"]) == (30, False)
    assert "only more seeds narrow it" in table(short)[-1]

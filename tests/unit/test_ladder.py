"""The comparison table: each algorithm has its part of a pipeline that can be planned, and rows make a page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ladder
from toolkit.agents import CONFIGS
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.plan import make_plan
from toolkit.strict_yaml import render

ROWS = list(ladder.planned())


def written(row: ladder.Row, folder: Path) -> Path:
    file = folder / "row.yaml"
    file.write_text(render(row.pipeline), encoding="utf-8")
    return file


def test_every_algorithm_has_a_row_on_each_maze_and_recording(tmp_path: Path) -> None:
    assert Counter(row.agent for row in ROWS) == dict.fromkeys(CONFIGS, len(ladder.MAZES) * len(ladder.DATA))
    assert len({row[:3] for row in ROWS}) == len(ROWS)
    for row in ROWS[:: len(ladder.DATA) - 1]:  # half of them, of both mazes and all recordings
        spec = load_spec(written(row, tmp_path))
        stages: dict[str, Any] = {name: stage for name, stage in spec.stages.items() if name != "collect"}
        assert stages[row.agent].agent == row.agent
        assert stages[row.last].env_steps == 20_000
        assert {stage.starts for stage in stages.values()} == {"far" if row.data == ladder.STITCHED else "all"}
        assert spec.seeds == (0, 1, 2)


@pytest.mark.parametrize("maze", ladder.MAZES)
@pytest.mark.parametrize("data", ladder.DATA)
def test_recordings_can_be_made_in_each_maze(maze: str, data: str, tmp_path: Path) -> None:
    """What a recipe asks of a maze does not depend on the algorithm."""
    made = make_plan(written(next(ladder.planned([maze], [data], ["bc"])), tmp_path))
    assert made.card.name == maze
    assert made.recipes["collect"].name == data


@pytest.mark.parametrize("file", ladder.PIPELINES, ids=lambda file: file.stem)
def test_every_stage_can_be_planned_in_the_large_maze(file: Path) -> None:
    """In the medium one, as all shipped pipelines (`test_plan`)."""
    task = load_spec(file).task.replace(*ladder.MAZES)
    assert make_plan(file, [f"task={task}"]).card.name == task


TINY = {"compile": "off", "final_episodes": 2, "eval_episodes": 1}
TRAINED = {"bc": {"updates": 20}, "bc_online": {"env_steps": 60, "warmup_steps": 20, "critic_steps": 10}}


@pytest.mark.timeout(300)
def test_a_row_is_measured(tmp_path: Path) -> None:
    overrides = ["seeds=[3, 4]", "hidden=[16]", "collect.episodes=60", "collect.workers=1"]
    for stage, settings in TRAINED.items():
        overrides += [f"{stage}.{key}={value}" for key, value in (TINY | settings).items()]
    (row,) = ladder.planned(ladder.MAZES[:1], ["mixture"], ["bc"])
    got = ladder.measure(row, overrides, tmp_path / "runs")
    assert (got["agent"], got["task"], got["data"]) == row[:3]
    assert (got["practised_with"], got["seeds"]) == ("sac", [3, 4])
    for phase in ("offline", "online"):
        assert got["ci95"][phase][0] <= got[phase] <= got["ci95"][phase][1]
        assert len(got["per_seed"][phase]) == 2
    assert got["dip"] >= 0.0
    assert 0.0 <= got["regret"] <= 1.0
    assert min(got["updates_per_s"], got["wall_s"]) > 0.0
    run = tmp_path / "runs" / "pointmaze-medium-mixture"
    assert [path.name for path in (run / "stages").iterdir()] == ["collect"]
    assert ladder.page([got]).splitlines()[-1].startswith("| `bc` | ")


def result(agent: str, data: str, online: float | None, **more: Any) -> dict[str, Any]:
    ci95 = {"offline": [0.4, 0.6], "online": None if online is None else [online - 0.1, online]}
    row = {"agent": agent, "task": "pointmaze-medium", "data": data, "practised_with": "sac", "offline": 0.5}
    row |= {"online": online, "ci95": ci95, "dip": 0.1, "regret": 0.25, "updates_per_s": 1234.5}
    return row | more


def test_a_row_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    out = tmp_path / "made" / "ladder.json"
    assert ladder.read(out) == []
    for online in (0.7, 0.9):
        ladder.write(out, result("iql", "stitch", online))
        ladder.write(out, result("bc", "stitch", 0.8))
    assert [(row["agent"], row["online"]) for row in ladder.read(out)] == [("bc", 0.8), ("iql", 0.9)]
    assert [path.name for path in out.parent.iterdir()] == ["ladder.json"]


def test_the_page_has_the_best_first() -> None:
    rows = [
        result("bc", "stitch", 0.8, dip=None),
        result("iql", "stitch", 0.9),
        result("hiql", "stitch", 0.7, task="pointmaze-medium-shown"),
        result("sac", "mixture", 0.1, offline=None, dip=None),
    ]
    text = ladder.page(rows)
    lines = text.removeprefix(ladder.INTRODUCTION).splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## pointmaze-medium, stitch",
        "## pointmaze-medium, mixture",
    ]
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| `")] == [
        "`iql`",
        "`bc`",
        "`hiql` (`pointmaze-medium-shown`)",
        "`sac`",
    ]
    assert "| `iql` | 0.50 (0.40 to 0.60) | sac | 0.90 (0.80 to 0.90) | 0.10 | 0.25 | 1,234 |" in lines
    assert "| `sac` |  | sac | 0.10 (0.00 to 0.10) |  | 0.25 | 1,234 |" in lines


def test_the_page_is_that_of_the_results() -> None:
    rows = ladder.read(ladder.RESULTS)
    assert ladder.PAGE.read_text(encoding="utf-8") == ladder.page(rows)
    for row in rows:
        json.dumps(row, allow_nan=False)
        assert {"seeds", "wall_s", "commit", "settings", "per_seed", "versions"} <= row.keys()


def test_the_table_has_the_settings_of_the_pipelines() -> None:
    settings = {row[:3]: row.settings([]) for row in ROWS}
    for row in ladder.read(ladder.RESULTS):
        assert row["settings"] == settings[row["agent"], row["task"], row["data"]]


@pytest.mark.parametrize(("maze", "best"), zip(ladder.MAZES, (0.95, 0.8), strict=True))
def test_values_join_what_imitation_does_not(maze: str, best: float) -> None:
    table = ladder.read(ladder.RESULTS)
    rows = [row for row in table if row["task"].startswith(maze) and row["data"] == ladder.STITCHED]
    offline = {row["agent"]: row["offline"] for row in rows if row["offline"] is not None}
    assert offline["bc"] <= 0.35
    assert offline["filtered_bc"] < offline["iql"]
    assert max(offline.values()) >= best
    assert 1.0 in [round(row["online"], 2) for row in rows if row["online"] is not None]

"""The oracle, the groups and the score, on a small maze with hand-made and recorded pieces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_stitching import make_episodes

from toolkit.collect import collect
from toolkit.controllers import Recipe
from toolkit.data.minari import read_minari
from toolkit.oracle import Oracle
from toolkit.pipeline.folder import MANIFEST
from toolkit.pipeline.stitch import by_dataset
from toolkit.stitch_score import Ladder, measure, stitching_score, table
from toolkit.stitching import coverage
from toolkit.strict_yaml import render
from toolkit.tasks import Goal, TaskCard, relabel
from toolkit.types import FloatArray, ToolkitError

# row 1: (1, 1) to (1, 5); row 3 the same, joined on the left through (2, 1) and on the right through (2, 5)
MAP = [
    [1, 1, 1, 1, 1, 1, 1],
    [1, 0, 0, 0, 0, 0, 1],
    [1, 0, 1, 1, 1, 0, 1],
    [1, 0, 0, 0, 0, 0, 1],
    [1, 1, 1, 1, 1, 1, 1],
]
CARD = TaskCard(
    name="ring-test",
    description="A ring",
    env_id="PointMaze_UMaze-v3",
    env_kwargs={"continuing_task": False, "maze_map": MAP},
    max_episode_steps=250,
    goal=Goal(cell=(3, 5)),
)
GOALS = CARD.model_copy(update={"name": "ring-gc", "goal": Goal(observed=True)})
TOP = [(1, 1), (1, 2), (1, 3)]


def lines(*paths: list[tuple[int, int]]):
    return make_episodes(*(CARD.maze.cell_to_xy(np.array(path)) for path in paths))


PIECES = lines(TOP, [(1, 3), (1, 4), (1, 5)], [(1, 5), (2, 5), (3, 5)])


def still(inputs: FloatArray) -> FloatArray:
    return np.zeros((*inputs.shape[:-1], 2), np.float32)


def test_the_oracle_takes_the_ways_of_the_data_alone() -> None:
    """Both ways round the ring are as long; the data knows one."""
    moves = coverage(PIECES, CARD.maze, CARD.goal_xy, 0.45).edges
    oracle = Oracle(CARD, moves)
    assert oracle.reaches((1, 1), (3, 5)) and not oracle.reaches((3, 5), (1, 1))
    x, y = CARD.maze.cell_to_xy(np.array((1, 1)))
    forces = oracle(np.array([[[x, y, 0, 0], [*CARD.maze.cell_to_xy(np.array((3, 3))), 0, 0]]], np.float32))
    assert forces[0, 0, 0] > 0.5 and abs(forces[0, 0, 1]) < 1e-6
    assert (forces[0, 1] == 0).all(), "where no data is it stays"


def test_groups_of_a_fixed_goal() -> None:
    ladder = Ladder(CARD, PIECES)
    assert [(group.stitches, group.starts, group.goals) for group in ladder.groups] == [
        (0, ((1, 5), (2, 5)), None),
        (1, ((1, 3), (1, 4)), None),
        (2, ((1, 1), (1, 2)), None),
    ]
    assert ladder.beyond == 5
    example = ladder.example()
    assert [piece["episode"] for piece in example["pieces"]] == [0, 1, 2]
    with pytest.raises(ToolkitError, match="from none of the task's starts"):
        Ladder(CARD, lines([(1, 1), (1, 2)]))


def test_groups_of_drawn_goals() -> None:
    ladder = Ladder(GOALS, PIECES)
    assert [(group.stitches, group.pairs) for group in ladder.groups] == [(0, 9), (1, 8), (2, 4)]
    far = ladder.groups[2]
    assert set(zip(far.starts, far.goals or (), strict=True)) == {
        (start, goal) for start in [(1, 1), (1, 2)] for goal in [(2, 5), (3, 5)]
    }


def test_groups_of_a_card_with_tasks() -> None:
    """The data joins one of two, by two stitches: nothing else is ever played."""
    card = GOALS.model_copy(update={"name": "ring-tasks", "tasks": (((1, 1), (3, 5)), ((3, 5), (1, 1)))})
    ladder = Ladder(card, PIECES)
    assert [(group.stitches, group.starts, group.goals) for group in ladder.groups] == [(2, ((1, 1),), ((3, 5),))]
    assert ladder.beyond == 1


@pytest.mark.parametrize("card", [CARD, GOALS])
def test_the_oracle_is_the_ceiling_and_standing_still_the_floor(card: TaskCard) -> None:
    ladder = Ladder(card, PIECES)
    heard: list[tuple[int, int]] = []
    found = measure(ladder, {"still": still, "twin": ladder.oracle}, 2, 4, progress=lambda *told: heard.append(told))
    assert heard[-1] == (3 * 3 * 2 * 4,) * 2
    assert [point["success"]["iqm"] for point in found["oracle"]["curve"]] == [1.0, 1.0, 1.0]
    assert found["policies"]["still"]["score"]["iqm"] == 0.0
    twin = found["policies"]["twin"]
    assert twin["score"]["per_seed"] == [1.0, 1.0]
    assert [point["length_over_oracle"]["iqm"] for point in twin["curve"]] == [1.0, 1.0, 1.0]
    assert any("1.00 (1.00 to 1.00)" in line for line in table(found))
    assert found == measure(ladder, {"still": still, "twin": ladder.oracle}, 2, 4), "the same numbers every time"


def test_the_score_counts_what_was_joined() -> None:
    stitches, oracle = np.array([0, 1, 2]), np.array([1.0, 1.0, 0.5])
    success = np.array([[1.0, 1.0, 0.0], [0.6, 0.9, 0.0], [0.0, 0.6, 0.0]])
    score = stitching_score(stitches, success, oracle)
    assert score is not None
    assert score["per_seed"] == pytest.approx([0.4, 1.0, 0.0])
    assert stitching_score(stitches[:1], success[:1], oracle[:1]) is None
    one = stitching_score(stitches, success[:, :1], oracle)
    assert one is not None and one["ci95"] == [None, None]


def test_each_stage_is_measured_on_the_recording_it_learned_from(tmp_path: Path) -> None:
    """A recording of a trained stage hides the one behind it."""
    stages = {
        "demos": ("collect", [], {"dataset": "data/demos"}),
        "clone": ("offline", ["demos"], {}),
        "played": ("record", ["clone"], {"dataset": "data/recorded/played-v0"}),
        "pretrain": ("offline", ["played"], {}),
        "finetune": ("online", ["pretrain", "played"], {}),
    }
    (tmp_path / "pipeline.yaml").write_text(render({"stages": {name: {} for name in stages}}))
    for name, (kind, inputs, result) in stages.items():
        (tmp_path / "stages" / name).mkdir(parents=True)
        manifest = {"kind": kind, "inputs": inputs, "result": result}
        (tmp_path / "stages" / name / MANIFEST).write_text(json.dumps(manifest))
    assert by_dataset(tmp_path) == {"data/demos": ["clone"], "data/recorded/played-v0": ["pretrain", "finetune"]}


def test_recorded_pieces_give_every_number_of_stitches(tmp_path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "pieces",
            "description": "Pieces",
            "task": "ring-test",
            "episodes": 60,
            "max_episode_steps": 80,
            "routes": "stitch",
            "max_cells": 2,
            "controller": {"kind": "waypoint"},
        }
    )
    episodes = relabel(CARD, read_minari(collect(recipe, CARD, tmp_path)))
    ladder = Ladder(CARD, episodes)
    assert [group.stitches for group in ladder.groups] == [0, 1, 2, 3]
    assert ladder.beyond == 0
    found = measure(ladder, {}, 1, 6)
    assert [point["success"]["iqm"] for point in found["oracle"]["curve"]] == [1.0] * 4

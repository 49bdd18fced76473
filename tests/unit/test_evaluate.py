"""Evaluation against one environment played by hand, and the promise that workers change nothing."""

from __future__ import annotations

import json
import os

import numpy as np
import numpy.typing as npt
import pytest

from toolkit.assess import table
from toolkit.evaluate import LANES, SHARE, EvalResult, evaluate
from toolkit.maze import Maze
from toolkit.tasks import Goal, Start, TaskCard, make_env
from toolkit.types import ToolkitError

CARD = TaskCard(
    name="umaze-test",
    description="A short way around a corner",
    env_id="PointMaze_UMaze-v3",
    env_kwargs={"continuing_task": False},
    max_episode_steps=150,
    goal=Goal(cell=(3, 1)),
    start=Start(cells=((1, 1), (1, 2), (2, 3), (3, 2))),
)
CELLS = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 2)]


class Guide:
    """Steers from cell to cell towards the goal; the strength depends on the seed, one seed stands still."""

    gain = (6.0, 0.0, 3.0)

    def __init__(self, maze: Maze = CARD.maze) -> None:
        self.maze = maze
        self.shapes: set[tuple[int, ...]] = set()

    def __call__(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self.shapes.add(inputs.shape)
        actions = np.zeros((*inputs.shape[:-1], 2), np.float32)
        for index in np.ndindex(inputs.shape[:-1]):
            x = inputs[index].astype(np.float64)
            cell = tuple(int(i) for i in self.maze.xy_to_cell(x[:2]))
            if self.maze.is_free(cell):
                target = self.maze.cell_to_xy(self.maze.toward(cell, (3, 1)))
                actions[index] = np.clip(self.gain[index[0]] * (target - x[:2]) - 1.5 * x[2:4], -1, 1)
        return actions


@pytest.fixture(scope="module")
def result() -> EvalResult:
    return evaluate(Guide(), CARD, seeds=3, episodes=30, starts=CELLS, base_seed=5, record_routes=True)


def equal(a: EvalResult, b: EvalResult, episodes: int | None = None) -> None:
    for name in ("success", "ret", "steps", "path_length", "shortest", "start_xy", "goal_xy", "path_ratio"):
        one, two = (np.ascontiguousarray(getattr(r, name)[:, :episodes]) for r in (a, b))
        assert one.tobytes() == two.tobytes(), name


def test_every_episode_equals_one_played_alone(result: EvalResult) -> None:
    """However the lanes were filled: the same episode, alone in one environment, comes out the same."""
    env, guide = make_env(CARD), Guide()
    assert result.routes is not None
    for seed, episode in [(0, 0), (0, 7), (0, 29), (1, 3), (2, 0), (2, 24), (2, 25), (2, 28)]:
        number = int(np.random.SeedSequence((5, seed, episode)).generate_state(1)[0])
        cell = CARD.maze.xy_to_cell(result.start_xy[seed, episode])
        observation, _ = env.reset(seed=number, options={"start_cell": tuple(cell)})
        xy, total, done = [observation["achieved_goal"]], 0.0, False
        while not done:
            inputs = np.zeros((3, 1, 4), np.float32)
            inputs[seed, 0] = CARD.policy_input(observation)
            observation, reward, terminated, truncated, info = env.step(guide(inputs)[seed, 0])
            xy.append(observation["achieved_goal"])
            total, done = total + reward, terminated or truncated
        route = result.routes[seed][episode]
        assert np.array_equal(route.xy, np.array(xy, np.float32))
        assert result.success[seed, episode] == info["is_success"]
        assert result.ret[seed, episode] == total == route.reward.sum()
        assert result.steps[seed, episode] == len(xy) - 1 == len(route.action) == len(route.inputs) - 1
        travelled = np.linalg.norm(np.diff(np.array(xy, np.float32).astype(float), axis=0), axis=1).sum()
        assert result.path_length[seed, episode] == pytest.approx(travelled)
    assert guide.shapes == {(3, 1, 4)}


def test_the_policy_always_sees_the_same_shape(result: EvalResult) -> None:
    guide = Guide()
    evaluate(guide, CARD, seeds=3, episodes=3, starts=CELLS)
    assert guide.shapes == {(3, LANES, 4)}


def test_outcomes(result: EvalResult) -> None:
    assert result.success.shape == (3, 30)
    assert result.success[0].mean() > 0.7
    assert not result.success[1].any()
    assert (result.steps[1] == CARD.max_episode_steps).all()
    assert (result.ret[1] == -CARD.max_episode_steps).all()
    assert (result.ret == -(result.steps - result.success)).all()
    assert np.isnan(result.path_ratio[1]).all()
    assert (result.goal_xy == CARD.goal_xy.astype(np.float32)).all()


def test_path_ratio_is_fair(result: EvalResult) -> None:
    """No route is shorter than the shortest, a sensible one is not much longer, and near starts do not count."""
    ratio = result.path_ratio[0]
    start_cells = CARD.maze.xy_to_cell(result.start_xy[0])
    near = (start_cells == (3, 2)).all(-1)
    assert np.isnan(ratio[near]).all()
    far = ratio[~near & (result.success[0] == 1)]
    assert len(far) > 15
    assert (far >= 0.999).all()
    assert far.mean() < 1.4
    for episode in range(30):
        whole = CARD.maze.shortest_length(result.start_xy[0, episode], result.goal_xy[0, episode])
        assert result.shortest[0, episode] == pytest.approx(max(0.0, whole - CARD.goal.radius))


def test_every_start_cell_equally_often(result: EvalResult) -> None:
    for seed in range(3):
        cells = [tuple(map(int, cell)) for cell in CARD.maze.xy_to_cell(result.start_xy[seed])]
        for turn in range(6):
            assert sorted(cells[5 * turn : 5 * turn + 5]) == sorted(CELLS)
    orders = {tuple(map(tuple, CARD.maze.xy_to_cell(result.start_xy[seed, :5]).tolist())) for seed in range(3)}
    assert len(orders) > 1


def test_the_cards_own_starts() -> None:
    found = evaluate(Guide(), CARD, seeds=1, episodes=40)
    cells = {tuple(map(int, cell)) for cell in CARD.maze.xy_to_cell(found.start_xy[0])}
    assert cells == set(CARD.start.cells)


def test_fewer_episodes_are_the_first_of_more(result: EvalResult) -> None:
    equal(evaluate(Guide(), CARD, seeds=3, episodes=8, starts=CELLS, base_seed=5), result, 8)
    equal(evaluate(Guide(), CARD, seeds=3, episodes=26, starts=CELLS, base_seed=5), result, 26)


def test_other_seeds_are_other_episodes(result: EvalResult) -> None:
    other = evaluate(Guide(), CARD, seeds=3, episodes=8, starts=CELLS, base_seed=6)
    assert not np.array_equal(other.start_xy, result.start_xy[:, :8])


def test_summary(result: EvalResult) -> None:
    summary = result.summary()
    assert summary["success"]["per_seed"] == [pytest.approx(x) for x in result.success.mean(1)]
    assert summary["success"]["episodes"] == 30
    assert summary["path_ratio"]["per_seed"][1] is None
    assert summary["steps_to_goal"]["per_seed"][0] == pytest.approx(result.steps[0][result.success[0] == 1].mean())
    assert "NaN" not in json.dumps(summary)


def test_progress_counts_every_episode() -> None:
    told: list[tuple[int, int]] = []
    evaluate(Guide(), CARD, seeds=2, episodes=SHARE + 1, starts=CELLS, progress=lambda a, b: told.append((a, b)))
    assert told == [(i, 2 * SHARE + 2) for i in range(1, 2 * SHARE + 3)]


class Diverged:
    def __call__(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.full((*inputs.shape[:-1], 2), np.nan, np.float32)


class Dies:
    def __call__(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        os._exit(9)


def test_few_episodes_start_no_process() -> None:
    evaluate(lambda x: 0 * x[..., :2], CARD, seeds=1, episodes=SHARE + 1, workers=2)


def test_bad_policies_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.evaluate.WORTH", 1e-9)
    with pytest.raises(ToolkitError, match="not finite"):
        evaluate(Diverged(), CARD, seeds=1, episodes=1)
    with pytest.raises(ToolkitError, match="workers=1"):
        evaluate(lambda x: x[..., :2], CARD, seeds=1, episodes=SHARE + 1, workers=2)
    with pytest.raises(ToolkitError, match="processes died"):
        evaluate(Dies(), CARD, seeds=1, episodes=SHARE + 1, workers=2)
    with pytest.raises(ToolkitError, match="evaluation needs"):
        evaluate(Guide(), CARD, seeds=1, episodes=0)
    with pytest.raises(ToolkitError, match="evaluation needs"):
        evaluate(Guide(), CARD, seeds=1, episodes=1, starts=[])


TASKS = (((1, 1), (3, 1)), ((3, 1), (1, 1)), ((2, 3), (3, 1)))
BY_TASK = CARD.model_copy(
    update={"goal": Goal(observed=True), "start": Start(), "tasks": TASKS, "max_episode_steps": 300}
)


def test_success_is_counted_by_task_and_each_is_played_equally_often() -> None:
    result = evaluate(Guide(), BY_TASK, seeds=2, episodes=6)
    assert [np.bincount(row).tolist() for row in result.task] == [[2, 2, 2]] * 2
    for at in np.ndindex(2, 6):
        cells = [tuple(BY_TASK.maze.xy_to_cell(xy[at]).tolist()) for xy in (result.start_xy, result.goal_xy)]
        assert tuple(cells) == TASKS[result.task[at]]
    summary = result.summary()
    rates = {name: value["per_seed"] for name, value in summary["tasks"].items()}
    assert rates == {"task1": [1.0, 0.0], "task2": [0.0, 0.0], "task3": [1.0, 0.0]}, "the guide knows one goal"
    words = {"agent": "guide", "task": "umaze", "seeds": [0, 1], "starts": "all", "episodes": 6, **summary}
    assert [line for line in table(words) if line.startswith("success task2")]
    unfinished = evaluate(Guide(), BY_TASK, seeds=2, episodes=5)
    equal(unfinished, result, 5)
    assert all(value["episodes"] in (1, 2) for value in unfinished.summary()["tasks"].values())
    assert "tasks" not in evaluate(Guide(), CARD, 1, 2).summary()


def test_a_reset_draws_one_of_the_tasks_unless_cells_are_given() -> None:
    env = make_env(BY_TASK)
    places = [env.reset(seed=seed)[0] for seed in range(20)]
    seen = [int(BY_TASK.task_of(seen["achieved_goal"], seen["desired_goal"])) for seen in places]
    assert set(seen) == {0, 1, 2}
    given, _ = env.reset(seed=0, options={"start_cell": (1, 2), "goal_cell": (3, 2)})
    assert BY_TASK.task_of(given["achieved_goal"], given["desired_goal"]) == -1

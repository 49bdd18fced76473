"""OGBench's mazes: cells, steps and tasks as the library has them, and its data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from toolkit.collect import collect
from toolkit.config import ConfigError, dump
from toolkit.controllers import Recipe, load_recipe
from toolkit.data.importers import read_data
from toolkit.data.importers.options import Options, columns
from toolkit.data.minari import import_minari, read_minari
from toolkit.evaluate import evaluate
from toolkit.oracle import Oracle
from toolkit.pipeline.runner import run_pipeline
from toolkit.recordings import check
from toolkit.stitching import coverage
from toolkit.tasks import EnvPool, TaskCard, load_card, make_env, relabel, unseen_env
from toolkit.tasks.mazes import make_library
from toolkit.types import FloatArray, Spec

pytest.importorskip("ogbench", reason="pip install ogbench", exc_type=ImportError)

CARDS = [f"ogbench-{robot}maze-{size}" for robot in ("point", "ant") for size in ("medium", "large", "giant")]
SMALL = ["ogbench-pointmaze-medium", "ogbench-antmaze-medium"]


@pytest.fixture(params=SMALL)
def card(request: pytest.FixtureRequest) -> TaskCard:
    return load_card(request.param)


@pytest.fixture
def theirs(card: TaskCard) -> Iterator[Any]:
    made = make_library(card.env_id)
    yield made.unwrapped
    made.close()


def actions(env: Any, seed: int, steps: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.action_space.shape[0])).astype(np.float32)


@pytest.mark.parametrize("name", CARDS)
def test_cells_and_tasks_are_the_librarys(name: str) -> None:
    card = load_card(name)
    library = make_library(card.env_id)
    theirs, maze = library.unwrapped, card.maze
    height = len(theirs.maze_map)
    for i, j in np.argwhere(theirs.maze_map == 0).tolist():
        cell = (height - 1 - i, j)
        assert maze.is_free(cell)
        np.testing.assert_array_equal(maze.cell_to_xy(cell), theirs.ij_to_xy((i, j)))
        assert theirs.xy_to_ij(maze.cell_to_xy(cell) + 1.9) == (i, j)
        np.testing.assert_array_equal(maze.xy_to_cell(maze.cell_to_xy(cell) + 1.9), cell)
    assert len(maze.free_cells) == (theirs.maze_map == 0).sum()
    found = [tuple(map(tuple, maze.cell_to_xy(pair))) for pair in card.tasks]
    assert found == [(task["init_xy"], task["goal_xy"]) for task in theirs.task_infos]
    assert card.goal.radius == theirs._goal_tol
    assert card.max_episode_steps == library.spec.max_episode_steps
    library.close()


def test_steps_equal_the_library_to_the_last_bit(card: TaskCard, theirs: Any) -> None:
    """Also while it is pressed into walls."""
    env = make_env(card)
    assert env.sizes == (Spec(4, 2, 2, position_dim=2) if "point" in card.name else Spec(31, 8, 2, position_dim=2))
    theirs.reset(seed=0)
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        mujoco.mj_resetData(theirs.model, theirs.data)
        theirs.set_goal(goal_xy=observation["desired_goal"])
        theirs.set_xy(observation["achieved_goal"])
        assert info == {"is_success": False}
        np.testing.assert_array_equal(observation["observation"], theirs.get_ob())
        for action in np.repeat(actions(env, seed, 10), 6, axis=0):
            mine, reward, terminated, _, _ = env.step(action)
            library, pay, ended, _, _ = theirs.step(action)
            np.testing.assert_array_equal(mine["observation"], library)
            np.testing.assert_array_equal(mine["achieved_goal"], theirs.get_xy())
            assert (reward, terminated) == (pay - 1, ended)


def test_what_lies_outside_counts_as_the_greatest_action(card: TaskCard) -> None:
    pool = EnvPool(card, 2)
    for lane in range(2):
        pool.reset(lane, seed=0)
    for action in actions(pool.envs[0], 0, 10):
        pool.step(np.stack([3 * action, np.clip(3 * action, -1, 1)]))
    np.testing.assert_array_equal(pool.observation[0], pool.observation[1])


def test_twins_move_on_their_own_and_repeat_with_their_seed(card: TaskCard) -> None:
    pool, alone = EnvPool(card, 2), unseen_env(card)
    assert pool.envs[0]._simulator._model is alone._simulator._model, "compiled once"
    for lane in range(2):
        pool.reset(lane, seed=lane)
    alone.reset(seed=1)
    both = actions(alone, 0, 40).reshape(20, 2, -1)
    for pair in both:
        pool.step(pair)
        observation, *_ = alone.step(pair[1])
        np.testing.assert_array_equal(pool.observation[1], observation["observation"].astype(np.float32))
    ended = pool.observation[0].copy()
    pool.reset(0, seed=0)  # as a resumed run plays the actions of a running episode again
    for pair in both:
        pool.step(pair, np.array([True, False]))
    np.testing.assert_array_equal(pool.observation[0], ended)


def test_an_episode_is_one_of_the_tasks_with_noise(card: TaskCard) -> None:
    env, seen = unseen_env(card), []
    for seed in range(30):
        observation, _ = env.reset(seed=seed)
        start, goal = observation["achieved_goal"], observation["desired_goal"]
        seen.append(int(card.task_of(start, goal)))
        for xy, cell in zip((start, goal), card.tasks[seen[-1]], strict=True):
            assert 0 < np.abs(xy - card.maze.cell_to_xy(cell)).max() <= 1.0
    assert set(seen) == set(range(5))
    observation, _ = env.reset(seed=0, options={"start_cell": (6, 1), "goal_cell": (6, 2)})
    assert card.task_of(observation["achieved_goal"], observation["desired_goal"]) == -1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("env_kwargs: {maze_unit: 2.0}", r"env_kwargs: expected none"),
        ("env_id: antmaze-teleport-v0", r"expected pointmaze or antmaze, then medium, large or giant"),
        ("env_id: visual-antmaze-medium-v0\nreward: {rule: env}", r"expected pointmaze or antmaze"),
        ("env_id: antsoccer-medium-v0\nreward: {rule: env}", r"expected pointmaze or antmaze"),
    ],
)
def test_wrong_cards_are_refused(tmp_path: Path, changes: str, message: str) -> None:
    env_id = [] if changes.startswith("env_id") else ["env_id: pointmaze-medium-v0"]
    lines = ["name: mine", "description: mine", *env_id, "max_episode_steps: 9", "goal: {observed: true}", changes]
    (tmp_path / "card.yaml").write_text("\n".join([*lines, ""]))
    with pytest.raises(ConfigError, match=message):
        load_card(tmp_path / "card.yaml")


def test_without_the_library_an_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['ogbench'] = None; from toolkit.tasks import load_card; load_card(sys.argv[1])"
    ended = subprocess.run([sys.executable, "-c", code, SMALL[0]], capture_output=True, text=True)
    assert "pip install ogbench" in ended.stderr


def small(name: str, episodes: int) -> Recipe:
    return Recipe.model_validate({**dump(load_recipe(name)), "episodes": episodes})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(small("stitch", 150), load_card(SMALL[0]), tmp_path_factory.mktemp("data"), seed=0)


def test_pieces_cover_the_maze_and_the_table_walks_along_them(recorded: Path) -> None:
    card, found = load_card(SMALL[0]), import_minari(recorded)
    assert [finding for finding in check(found, card) if finding.rule != "no-success"] == []
    episodes = relabel(card, read_minari(recorded))
    assert episodes.terminated.mean() > 0
    oracle = Oracle(card, coverage(episodes, card.maze, card.maze.cell_to_xy((6, 1)), card.goal.radius).edges)
    result = evaluate(oracle, card, 1, 5)
    assert result.success.mean() == 1.0
    assert sorted(result.task[0].tolist()) == [0, 1, 2, 3, 4]
    assert np.nanmax(result.path_ratio) < 1.5


def test_the_ants_trot_reaches_its_goals(tmp_path: Path) -> None:
    card = load_card(SMALL[1])
    episodes = read_minari(collect(small("ant-navigate", 6), card, tmp_path, seed=0))  # whole routes, without detours
    assert episodes.obs.shape[1] == 29
    assert episodes.terminated.sum() == 6


def npz_of_the_library(theirs: Any, path: Path, achieved: str, length: int = 60) -> Any:
    """Trajectories in OGBench's layout of short pieces: T + 1 states each, one after the other."""
    rows: dict[str, list[Any]] = {"observations": [], "actions": [], "terminals": [], "qpos": [], "qvel": []}
    free = np.argwhere(theirs.maze_map == 0).tolist()
    for number, (i, j) in enumerate(free):
        np.random.seed(number)  # noqa: NPY002 (the library draws from it)
        theirs.reset(seed=number)
        theirs.set_xy(theirs.add_noise(theirs.ij_to_xy((i, j))))
        for at, action in enumerate(np.repeat(actions(theirs, number, 1 + length // 20), 20, axis=0)[: length + 1]):
            values = (theirs.get_ob(), action, float(at == length), theirs.data.qpos, theirs.data.qvel)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(np.array(value, np.float32))
            theirs.step(action)
    np.savez(path, **{name: np.stack(values) for name, values in rows.items()})
    return read_data(path, options=Options(achieved=columns(achieved)))


def test_data_in_its_layout_fits_its_card(card: TaskCard, theirs: Any, tmp_path: Path) -> None:
    found = npz_of_the_library(theirs, tmp_path / "pieces-v0.npz", "0:2")
    assert len(found.episodes) == len(card.maze.free_cells)
    assert [finding for finding in check(found, card) if finding.rule != "no-success"] == []
    episodes = relabel(card, found.episodes, whole=True)
    assert episodes.transitions == 60 * len(found.episodes)
    seen = coverage(episodes, card.maze, card.maze.cell_to_xy((6, 1)), card.goal.radius)
    assert all(seen.visited[cell] for cell in card.maze.free_cells)


def test_a_pipeline_trains_and_reports_by_task(tmp_path: Path) -> None:
    text = Path("envs", f"{SMALL[0]}.yaml").read_text()
    (tmp_path / "short.yaml").write_text(text.replace("max_episode_steps: 1000", "max_episode_steps: 30"))
    lines = ["name: fives", f"task: {tmp_path / 'short.yaml'}", "seeds: [0, 1]", "hidden: [16]", "stages:"]
    lines.append("  collect: {kind: collect, recipe: stitch, episodes: 20, workers: 1}")
    for agent in ("bc", "iql"):
        lines.append(f"  {agent}: {{kind: offline, agent: {agent}, updates: 4, relabel: {{}}, final_episodes: 5}}")
    lines.append("  evaluate: {kind: evaluate, of: [iql], episodes: 5}")
    (tmp_path / "fives.yaml").write_text("\n".join([*lines, ""]))
    run_pipeline(tmp_path / "fives.yaml", out=tmp_path / "run", progress="none")
    stages = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    for name in ("bc", "iql", "evaluate"):
        assert list(stages[name]["tasks"]) == [f"task{number}" for number in range(1, 6)]

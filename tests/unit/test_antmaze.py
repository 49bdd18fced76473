"""The ant in mazes: what it sees, that it goes where it is sent, and that recordings of it are sound."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from toolkit.collect import collect
from toolkit.config import ConfigError, dump
from toolkit.controllers import Recipe, load_recipe
from toolkit.controllers.ant import AntController, trot
from toolkit.data.audit import audit
from toolkit.data.minari import import_minari, read_minari
from toolkit.evaluate import evaluate
from toolkit.oracle import Oracle
from toolkit.recordings import check
from toolkit.stitching import coverage
from toolkit.tasks import EnvPool, TaskEnv, load_card, make_env, relabel, unseen_env
from toolkit.types import FloatArray, Spec, ToolkitError

CARDS = ["antmaze-umaze", "antmaze-medium", "antmaze-large"]
REST = [0.75, 1, 0, 0, 0, *[0] * 22]  # height, upright, joints straight, nothing moves


@pytest.fixture(scope="module")
def env() -> TaskEnv:
    return make_env(load_card("antmaze-umaze"))


def torques(seed: int, steps: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 8)).astype(np.float32)


@pytest.mark.parametrize("name", CARDS)
def test_places_stand_in_front_of_the_observation(name: str) -> None:
    card = load_card(name)
    env = make_env(card)
    assert env.sizes == Spec(29, 8, position_dim=2)
    assert card.maze.scale == 4.0
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        assert info == {"is_success": False}
        np.testing.assert_array_equal(observation["observation"][2:], REST)
        np.testing.assert_array_equal(observation["achieved_goal"], observation["observation"][:2])
        np.testing.assert_array_equal(observation["desired_goal"], card.maze.cell_to_xy(card.goal.cell))
        offset = observation["achieved_goal"] - card.maze.cell_to_xy(card.maze.xy_to_cell(observation["achieved_goal"]))
        assert np.abs(offset).max() <= 1.0


def test_steps_equal_the_library_to_the_last_bit(env: TaskEnv) -> None:
    """Physics and success; the library's own observation lacks the first two numbers."""
    theirs = gymnasium.make(env.card.env_id, disable_env_checker=True, **env.card.env_kwargs).unwrapped
    Path(theirs.tmp_xml_file_path).unlink()
    theirs.reset(seed=0)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        theirs.goal = observation["desired_goal"].copy()
        theirs.ant_env.init_qpos[:2] = observation["achieved_goal"]
        theirs.ant_env.reset()
        for action in np.repeat(1.5 * torques(seed, 20), 5, axis=0):
            mine, reward, terminated, _, _ = env.step(action)
            library, pay, ended, _, _ = theirs.step(action)
            np.testing.assert_array_equal(mine["observation"][2:], library["observation"])
            np.testing.assert_array_equal(mine["achieved_goal"], library["achieved_goal"])
            assert (reward, terminated) == (pay - 1, ended)


def test_twins_move_on_their_own_and_repeat_with_their_seed(env: TaskEnv) -> None:
    card = env.card
    pool, alone = EnvPool(card, 2), unseen_env(card)
    assert pool.envs[0]._simulator._model is alone._simulator._model, "compiled once"
    for lane in range(2):
        pool.reset(lane, seed=lane)
    alone.reset(seed=1)
    actions = torques(0, 80).reshape(40, 2, 8)
    for both in actions:
        pool.step(both)
        observation, *_ = alone.step(both[1])
        np.testing.assert_array_equal(pool.observation[1], observation["observation"].astype(np.float32))
    ended = pool.observation[0].copy()
    pool.reset(0, seed=0)  # as a resumed run plays the actions of a running episode again
    for both in actions:
        pool.step(both, np.array([True, False]))
    np.testing.assert_array_equal(pool.observation[0], ended)


def test_a_fall_ends_nothing(env: TaskEnv) -> None:
    env.reset(seed=0, options={"start_cell": (1, 1)})
    qpos = env.qpos()
    qpos[2:7] = 0.3, 0, 1, 0, 0  # on its back
    env.put(qpos, np.zeros(14))
    assert env.step(np.zeros(8, np.float32))[2:4] == (False, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("start: {noise: 1.1}", r"start.noise: expected at most 1.0 m"),
        ("directions: 8", "directions: expected null"),
        ("goal: {cell: [2, 2]}", r"goal.cell: expected one of the free cells"),
    ],
)
def test_wrong_cards_are_refused(tmp_path: Path, changes: str, message: str) -> None:
    lines = ["name: mine", "description: mine", "env_id: AntMaze_UMaze-v5", "max_episode_steps: 9"]
    goal = [] if changes.startswith("goal") else ["goal: {cell: [3, 1]}"]
    (tmp_path / "card.yaml").write_text("\n".join([*lines, *goal, changes, ""]))
    with pytest.raises(ConfigError, match=message):
        load_card(tmp_path / "card.yaml")


def test_it_walks_any_way_without_turning(env: TaskEnv) -> None:
    """In the straight of the U it goes forth and back; many states at once are each as it is alone."""
    states, headings = [], [0.0, np.pi]
    for heading, start in zip(headings, [(1, 1), (1, 3)], strict=True):
        observation, _ = env.reset(seed=0, options={"start_cell": start})
        before = observation["observation"]
        for _ in range(60):
            observation, *_ = env.step(trot(observation["observation"], np.float64(heading)).astype(np.float32))
        gone = observation["observation"][:2] - before[:2]
        assert gone[0] * np.cos(heading) > 1.5
        assert abs(gone[1]) < 0.8
        states.append(observation["observation"])
    together = trot(np.stack(states), np.array(headings))
    for state, heading, torque in zip(states, headings, together, strict=True):
        np.testing.assert_allclose(trot(state, np.float64(heading)), torque, rtol=1e-12)


def small(name: str, episodes: int, **changes: object) -> Recipe:
    return Recipe.model_validate({**dump(load_recipe(name)), "episodes": episodes, **changes})


@pytest.mark.parametrize("name", ["ant-navigate", "ant-stitch", "ant-mixture"])
def test_shipped_recipes_are_the_ants(name: str) -> None:
    recipe = load_recipe(name)
    card = load_card(recipe.task)
    assert isinstance(recipe.controllers(card.env_id, card.maze, 8)[0], AntController)
    for other, dim in (("PointMaze_UMaze-v3", 2), ("HalfCheetah-v5", 6)):
        with pytest.raises(ToolkitError):
            recipe.controllers(other, card.maze if "Maze" in other else None, dim)
    with pytest.raises(ToolkitError, match="drives a ball or point"):
        load_recipe("navigate").controllers(card.env_id, card.maze, 8)


@pytest.fixture(scope="module")
def recorded(env: TaskEnv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(small("ant-navigate", 6), env.card, tmp_path_factory.mktemp("data"), seed=0)


def test_recordings_are_sound_and_reach_their_goals(env: TaskEnv, recorded: Path) -> None:
    found = import_minari(recorded)
    assert audit(found) == []
    assert [finding for finding in check(found, env.card) if finding.rule != "no-success"] == []
    episodes = found.episodes
    assert episodes.terminated.sum() >= 4
    assert episodes.obs.shape[1] == 29 and episodes.action.shape[1] == 8


def test_falls_and_random_walks_raise_no_alarm(env: TaskEnv, tmp_path: Path) -> None:
    folder = collect(small("ant-mixture", 10, max_episode_steps=200), env.card, tmp_path, seed=1)
    assert audit(import_minari(folder)) == []


def test_recorded_actions_give_the_recording_again(env: TaskEnv, recorded: Path) -> None:
    recipe, episodes = small("ant-navigate", 6), read_minari(recorded)
    again = read_minari(collect(recipe, env.card, recorded.parents[2] / "again", seed=0, workers=2))
    np.testing.assert_array_equal(again.obs, episodes.obs)
    np.testing.assert_array_equal(again.action, episodes.action)


def test_pieces_cover_the_maze_and_the_table_walks_along_them(env: TaskEnv, tmp_path: Path) -> None:
    card = env.card
    episodes = relabel(card, read_minari(collect(small("ant-stitch", 40, max_cells=2), card, tmp_path, seed=0)))
    seen = coverage(episodes, card.maze, card.goal_xy, card.goal.radius)
    oracle = Oracle(card, seen.edges)
    assert oracle.reaches((1, 1), (3, 1))
    result = evaluate(oracle, card, 1, 3, starts=[(1, 2)])
    assert result.success.mean() >= 2 / 3

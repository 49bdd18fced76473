"""Cards, environments, pools and the one rule for success in simulator and data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from toolkit.config import ConfigError
from toolkit.tasks import EnvPool, Goal, Start, TaskCard, TaskEnv, load_card, make_env, relabel
from toolkit.types import Episodes, Spec, ToolkitError

ROOT = Path(__file__).parents[2]
CARDS = [f"pointmaze-{size}{kind}" for size in ("umaze", "medium", "large") for kind in ("", "-gc")]


@pytest.fixture(scope="module")
def env() -> TaskEnv:
    return make_env(load_card("pointmaze-medium"))


@pytest.fixture(scope="module")
def goal_env() -> TaskEnv:
    return make_env(load_card("pointmaze-umaze-gc"))


@pytest.mark.parametrize("name", CARDS)
def test_shipped_cards_make_environments(name: str) -> None:
    card = load_card(name)
    env = make_env(card)
    observation, info = env.reset(seed=0)
    assert info == {"is_success": False}
    assert env.env_spec.max_episode_steps == env.twin().env_spec.max_episode_steps == card.max_episode_steps
    assert card.policy_input(observation).shape == (env.sizes.obs_dim,)
    assert env.sizes == (Spec(6, 2, 2, position_dim=2) if card.goal.observed else Spec(4, 2, position_dim=2))
    if card.goal.cell is not None:
        np.testing.assert_array_equal(observation["desired_goal"], env.maze.cell_to_xy(card.goal.cell))


@pytest.mark.filterwarnings("ignore:.*Box observation space")
def test_gymnasium_finds_nothing_wrong(goal_env: TaskEnv) -> None:
    check_env(goal_env, skip_render_check=True)


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "PointMaze_Medium-v3"])
def test_steps_equal_the_library_to_the_last_bit(env_id: str) -> None:
    """Physics, success and end, along pushes into walls and with actions out of bounds."""
    card = TaskCard(name="x", description="x", env_id=env_id, max_episode_steps=10**6, goal=Goal(observed=True))
    ours = make_env(card)
    theirs = gymnasium.make(env_id, continuing_task=False, reset_target=False, disable_env_checker=True).unwrapped
    Path(theirs.tmp_xml_file_path).unlink()
    theirs.reset(seed=0)
    for seed in range(5):
        observation, _ = ours.reset(seed=seed)
        theirs.goal = observation["desired_goal"].copy()
        theirs.point_env.init_qpos[:2] = observation["achieved_goal"]
        theirs.point_env.reset()
        pushes = np.random.default_rng(seed).uniform(-1.5, 1.5, (60, 2)).astype(np.float32)
        for action in np.repeat(pushes, 15, axis=0):
            mine, reward, terminated, truncated, info = ours.step(action)
            library, pay, ended, _, extra = theirs.step(action)
            for key in library:
                np.testing.assert_array_equal(mine[key], library[key])
            assert (terminated, truncated, info["is_success"]) == (ended, False, extra["success"])
            assert reward == pay - 1


def test_seed_and_options_determine_a_reset(goal_env: TaskEnv) -> None:
    first, _ = goal_env.reset(seed=7)
    goal_env.step(np.ones(2, np.float32))
    again, _ = goal_env.reset(seed=7)
    other, _ = make_env(goal_env.card).reset(seed=7)
    different, _ = goal_env.reset(seed=8)
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        np.testing.assert_array_equal(first[key], other[key])
    assert not np.array_equal(first["desired_goal"], different["desired_goal"])
    drawn = {tuple(goal_env.reset(seed=seed)[0]["desired_goal"]) for seed in range(20)}
    assert len(drawn) == 20


def test_given_cells_are_taken(env: TaskEnv, goal_env: TaskEnv) -> None:
    for seed in range(10):
        observation, _ = env.reset(seed=seed, options={"start_cell": (1, 1), "goal_cell": np.array([1, 6])})
        assert tuple(env.maze.xy_to_cell(observation["achieved_goal"])) == (1, 1)
        assert tuple(env.maze.xy_to_cell(observation["desired_goal"])) == (1, 6)
        observation, _ = goal_env.reset(seed=seed, options={"goal_cell": (1, 1)})
        assert tuple(goal_env.maze.xy_to_cell(observation["achieved_goal"])) != (1, 1)
        assert np.abs(observation["desired_goal"] - goal_env.maze.cell_to_xy((1, 1))).max() <= 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_cell": (0, 0)}, "start_cell: expected a free cell"),
        ({"goal_cell": (99, 1)}, "goal_cell: expected a free cell"),
        ({"reset_cell": (1, 1)}, "options .*reset_cell.* unknown"),
        ({"start_cell": (1, 1), "goal_cell": (1, 1)}, "expected two different cells"),
    ],
)
def test_bad_options_say_what_is_wrong(env: TaskEnv, options: dict[str, object], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        env.reset(seed=0, options=options)


def test_starts_keep_to_the_cards_cells() -> None:
    card = load_card("pointmaze-medium").model_copy(update={"start": Start(cells=((1, 1), (6, 6)), noise=0.0)})
    env = make_env(card)  # the goal's cell is left out
    for seed in range(5):
        np.testing.assert_array_equal(env.reset(seed=seed)[0]["achieved_goal"], env.maze.cell_to_xy((1, 1)))


def test_time_limit_truncates_and_success_terminates() -> None:
    card = load_card("pointmaze-umaze").model_copy(update={"max_episode_steps": 5})
    env = make_env(card)
    env.reset(seed=0, options={"start_cell": (1, 1)})
    ends = [env.step(np.zeros(2, np.float32))[1:4] for _ in range(5)]
    assert ends == [(-1.0, False, False)] * 4 + [(-1.0, False, True)]
    env = make_env(card.model_copy(update={"max_episode_steps": 100}))
    env.reset(seed=0, options={"start_cell": (3, 2)})
    while True:
        observation, reward, terminated, truncated, info = env.step(np.array([-1, 0], np.float32))
        if terminated or truncated:
            break
        assert (reward, info["is_success"]) == (-1.0, False)
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, True, False, True)
    assert np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) <= 0.45


def test_a_pool_equals_its_environments_one_by_one() -> None:
    card = load_card("pointmaze-umaze-gc").model_copy(update={"max_episode_steps": 30})
    pool, alone = EnvPool(card, 3), make_env(card)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3, 2)).astype(np.float32)
    active = np.array([True, True, True])
    for lane in range(3):
        pool.reset(lane, seed=lane, options={"start_cell": (1, 1)})
    history = []
    for step in range(30):
        active[1] = step < 10
        pool.step(actions[step], active)
        history.append((pool.inputs.copy(), pool.reward.copy(), pool.terminated | pool.truncated))
    for lane in range(3):
        observation, _ = alone.reset(seed=lane, options={"start_cell": (1, 1)})
        for step in range(10 if lane == 1 else 30):
            observation, reward, terminated, truncated, _ = alone.step(actions[step, lane])
            inputs, rewards, ended = history[step]
            np.testing.assert_array_equal(inputs[lane], card.policy_input(observation))
            assert (rewards[lane], ended[lane]) == (reward, terminated or truncated)
    assert pool.steps.tolist() == [30, 10, 30]
    assert pool.truncated.tolist() == [True, False, True]
    np.testing.assert_array_equal(pool.inputs[:, 4:], pool.desired)


def test_a_twin_cannot_render_but_says_so(env: TaskEnv) -> None:
    with pytest.raises(ToolkitError, match="twin cannot render"):
        env.twin().render()


def test_making_an_environment_leaves_no_files_and_prints_nothing(tmp_path: Path) -> None:
    code = (
        "from toolkit.tasks import load_card, make_env; import os, sys, tempfile;"
        "make_env(load_card('pointmaze-umaze')).reset(seed=0); assert 'torch' not in sys.modules;"
        "assert tempfile.gettempdir() == os.environ['TMPDIR']"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def write_card(path: Path, **changes: str) -> Path:
    lines = {
        "name": "mine",
        "description": "mine",
        "env_id": "PointMaze_UMaze-v3",
        "max_episode_steps": "100",
        "goal": "{cell: [3, 1]}",
    }
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**lines, **changes}.items()))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"goal": "{observed: true}", "tasks": "[[[1, 1], [0, 1]]]"},
            r"tasks\[0\]\[1\]: expected one of the free cells",
        ),
        ({"goal": "{observed: true}", "tasks": "[[[1, 1], [1, 1]]]"}, r"in a pair two different cells"),
        ({"tasks": "[[[1, 1], [3, 1]]]"}, r"tasks: say where .* expected goal.cell: null"),
        ({"goal": "{cell: [0, 1]}"}, r"card.yaml:5: goal.cell: expected one of the free cells .*got \[0, 1\]"),
        ({"start": "{cells: [[1, 1], [9, 9]]}"}, r"card.yaml:6: start.cells.*got \[9, 9\]"),
        ({"goal": "{observed: false}"}, "expected goal.cell or goal.observed"),
        ({"env_id": "PointMaze_Nowhere-v3"}, r"card.yaml:3: env_id: .*PointMaze_UMaze-v3"),
        ({"env_id": "os:system"}, r"card.yaml:3: env_id"),
        ({"goal": "{cell: [3, 1], radios: 1}"}, "did you mean 'radius'"),
        (
            {"env_kwargs": "{maze_map: [[1, 1, 1], [1, 0], [1, 1, 1]]}"},
            r"card.yaml:6: env_kwargs.maze_map\[1\]: expected 3 cells, as the first row has; got 2",
        ),
        ({"env_kwargs": "{maze_map: [[1, [0], 1]]}"}, r"maze_map\[0\]\[1\]: expected one of .*got \[0\]"),
        ({"env_kwargs": "{maze_map: [[1, true, 1]]}"}, r"maze_map\[0\]\[1\]: expected one of .*got True"),
        ({"env_kwargs": "{maze_map: 5}"}, "maze_map: expected rows in a list.*got 5"),
        ({"env_kwargs": "{maze_map: []}"}, "maze_map: expected rows in a list"),
        ({"env_kwargs": "{maze_map: [1, 0, 1]}"}, "maze_map: expected rows in a list"),
    ],
)
def test_wrong_cards_name_line_and_path(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_card(write_card(tmp_path / "card.yaml", **changes))


def test_arguments_that_a_maze_does_not_take_are_named(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"PointMaze_UMaze-v3 cannot be made with \{'wind': 1\}"):
        make_env(load_card(write_card(tmp_path / "card.yaml", env_kwargs="{wind: 1}")))


@pytest.mark.parametrize(
    ("reward", "gamma", "expected"),
    [
        ("{rule: sparse, step: -1, success: 0}", 0.98, -50.0),  # -1 for ever
        ("{rule: sparse, step: -1, success: 0}", 1.0, -100.0),  # without discount as long as an episode
        ("{rule: sparse, step: 0, success: 1}", 0.99, 0.0),
        ("{rule: sparse, step: -1, success: -500}", 0.99, -500.0),
        ("{rule: dense, step: -1, success: 0}", 0.9, -10.0),
    ],
)
def test_after_a_time_limit_the_worst_may_follow(tmp_path: Path, reward: str, gamma: float, expected: float) -> None:
    card = load_card(write_card(tmp_path / "card.yaml", reward=reward))
    assert card.cut_value(gamma) == pytest.approx(expected)


def test_what_follows_a_time_limit_is_not_known_where_the_simulator_pays() -> None:
    assert load_card("halfcheetah").cut_value(0.99) == 0.0


def rows(xy: list[tuple[float, float]], starts: list[int], desired: np.ndarray | None = None) -> Episodes:
    """Episodes that visit these points, with junk in everything relabelling must overwrite."""
    place = np.array(xy, np.float32)
    count = len(place)
    return Episodes(
        obs=np.concatenate([place, np.arange(2 * count, dtype=np.float32).reshape(count, 2)], axis=1),
        achieved=place,
        desired=np.full((count, 2), 99, np.float32) if desired is None else desired,
        action=np.ones((count, 2), np.float32),
        reward=np.full(count, 7, np.float32),
        terminated=np.ones(count, np.bool_),
        truncated=np.ones(count, np.bool_),
        starts=np.array(starts),
    )


def test_relabel_cuts_at_the_goal_and_begins_again_outside() -> None:
    card = load_card("pointmaze-umaze")  # goal (-1, -1)
    away, inside = (1.0, 1.0), (-1.2, -1.0)
    recordings = [[away, away, inside, inside, away, away], [inside, away, inside], [away, away], [inside, inside]]
    data = rows([point for recording in recordings for point in recording], [0, 6, 9, 11, 13])
    out = relabel(card, data)
    assert out.lengths.tolist() == [2, 1, 1, 1]
    assert out.obs[:, 2].tolist() == [0, 2, 4, 8, 10, 14, 16, 18, 20]
    assert out.terminated.tolist() == [False, True, False, False, False, True, False, False, False]
    assert out.truncated.tolist() == [False, False, False, True, False, False, False, True, False]
    assert out.reward.tolist() == [-1, 0, 0, -1, 0, 0, 0, -1, 0]
    assert out.action[:, 0].tolist() == [1, 1, 0, 1, 0, 1, 0, 1, 0]
    assert (out.desired == -1).all()
    assert (data.reward == 7).all()
    assert card.inputs(out).shape == (9, 4)


def test_relabel_keeps_observed_goals() -> None:
    card = load_card("pointmaze-umaze-gc")
    goals = np.array([(1, 1)] * 3 + [(0, 1)] * 2, np.float32)
    out = relabel(card, rows([(0, 0), (0.5, 1), (1, 1), (1, 1), (0, 1)], [0, 5], goals))
    assert out.lengths.tolist() == [2, 1]  # the goal changed when it was reached
    assert out.terminated.tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(out.desired, goals)
    np.testing.assert_array_equal(card.inputs(out)[:, 4:], goals)


def test_relabel_leaves_episodes_whole_for_goals_drawn_anew() -> None:
    """Through the goal and beyond: one episode that ends outside, one that ends inside."""
    goals = np.array([(1, 1)] * 4 + [(0, 3)] * 3, np.float32)
    data = rows([(0, 0), (0.8, 1), (1, 1), (5, 5), (0, 0), (0, 2), (0, 3)], [0, 4, 7], goals)
    out = relabel(load_card("pointmaze-umaze-gc"), data, whole=True)
    for name in ("obs", "achieved", "desired", "action", "starts"):
        assert np.array_equal(getattr(out, name), getattr(data, name)), name
    assert out.reward.tolist() == [0, 0, -1, 0, -1, 0, 0]
    assert np.flatnonzero(out.terminated).tolist() == [5]
    assert np.flatnonzero(out.truncated).tolist() == [2]


def test_relabel_agrees_with_the_simulator(goal_env: TaskEnv) -> None:
    """An episode the environment recorded comes back unchanged."""
    card, rng = goal_env.card, np.random.default_rng(3)
    for seed in range(15):
        observation, _ = goal_env.reset(seed=seed)
        seen, rewards, ended = [observation], [], False
        while not ended:
            toward = observation["desired_goal"] - observation["achieved_goal"]
            action = np.clip(toward + rng.normal(0, 1, 2), -1, 1).astype(np.float32)
            observation, reward, terminated, truncated, _ = goal_env.step(action)
            ended = terminated or truncated
            seen.append(observation)
            rewards.append(reward)
        xy = [tuple(row["achieved_goal"]) for row in seen]
        goals = np.array([row["desired_goal"] for row in seen], np.float32)
        out = relabel(card, rows(xy, [0, len(xy)], goals))
        assert out.lengths.tolist() == [len(rewards)]
        assert out.reward.tolist() == [*rewards, 0]
        assert (out.terminated[-2], out.truncated[-2]) == (terminated, truncated)


def test_relabel_needs_goals() -> None:
    data = rows([(0, 0), (1, 1)], [0, 2])
    plain = Episodes(**{**data.__dict__, "achieved": data.achieved[:, :0], "desired": data.desired[:, :0]})
    with pytest.raises(ToolkitError, match="expected data with achieved goals"):
        relabel(load_card("pointmaze-umaze"), plain)

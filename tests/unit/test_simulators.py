"""Tasks beyond the sparse maze: any Gymnasium environment, other rewards, discrete actions, goals that are shown."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.unit.test_controllers import install_package
from toolkit.collect import collect
from toolkit.config import ConfigError
from toolkit.controllers import RandomController, WaypointController, load_recipe
from toolkit.data.minari import read_minari
from toolkit.evaluate import SHARE, evaluate
from toolkit.oracle import Oracle
from toolkit.stitching import coverage
from toolkit.tasks import EnvPool, Goal, Reward, TaskCard, TaskEnv, load_card, make_env, relabel, try_out
from toolkit.tasks.actions import Choices, Scaled, pushes
from toolkit.tasks.registry import registry_spec, source_of
from toolkit.types import Spec, ToolkitError

SIZES = {
    "pendulum": Spec(3, 1),
    "cartpole": Spec(4, 2, discrete=True),
    "halfcheetah": Spec(17, 6),
    "fetch-reach": Spec(13, 4, 3),
    "kitchen-microwave-light-slide": Spec(59, 9),
    "pointmaze-umaze-dense": Spec(4, 2, position_dim=2),
    "pointmaze-umaze-discrete": Spec(4, 9, discrete=True, position_dim=2),
    "pointmaze-medium-discrete": Spec(4, 9, discrete=True, position_dim=2),
    "pointmaze-medium-shown": Spec(6, 2, 2, position_dim=2),
    "pointmaze-large-shown": Spec(6, 2, 2, position_dim=2),
}


def actions(env: TaskEnv, seed: int, steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    controls = rng.uniform(-1, 1, (steps, env.actions.control_dim)).tolist()
    return [np.asarray(env.actions.nearest(control), np.float32) for control in controls]


def play(env: TaskEnv, seed: int, steps: int = 25) -> list[object]:
    """All that an episode gives, as bytes and numbers."""
    observation, info = env.reset(seed=seed)
    found: list[object] = [info["is_success"]]
    for action in actions(env, seed, steps):
        found += [rows.tobytes() for rows in observation.values()]
        observation, *outcome, info = env.step(action)
        found += [*outcome, info["is_success"]]
        if outcome[1] or outcome[2]:
            break
    return found


@pytest.mark.parametrize("name", sorted(SIZES))
def test_an_episode_follows_from_its_seed(name: str) -> None:
    """Whatever was played before, and in a twin as well: what exact resume and evaluation rest on."""
    env = make_env(load_card(name))
    assert env.sizes == SIZES[name]
    first = play(env, 3)
    assert play(env, 4) != first
    assert play(env, 3) == first
    twin = env.twin()
    twin.reset(seed=9)
    assert play(twin, 3) == first
    assert all(word is None or isinstance(word, bool) for word in (first[0], first[-1]))


@pytest.mark.filterwarnings("ignore:.*Box observation space")
@pytest.mark.parametrize("name", ["pendulum", "cartpole", "fetch-reach", "pointmaze-umaze-discrete"])
def test_gymnasium_finds_nothing_wrong(name: str) -> None:
    check_env(make_env(load_card(name)), skip_render_check=True)


@pytest.mark.parametrize("name", ["pendulum", "cartpole", "halfcheetah"])
def test_a_plain_environment_is_the_library_s_own(name: str) -> None:
    env = make_env(load_card(name))
    library = gymnasium.make(env.card.env_id)
    ours, _ = env.reset(seed=5)
    theirs, _ = library.reset(seed=int(gymnasium.utils.seeding.np_random(5)[0].integers(2**31)))
    for action in actions(env, 5, 40):
        np.testing.assert_array_equal(ours["observation"], theirs)
        own = int(action.argmax()) if env.sizes.discrete else action * library.action_space.high
        (ours, *outcome, info), (theirs, *expected, _) = env.step(action), library.step(own)
        assert (outcome, info) == (expected, {"is_success": None})
        if outcome[1]:
            break
    np.testing.assert_array_equal(ours["observation"], theirs)


def test_fetch_follows_the_card_s_rule() -> None:
    """Success by distance in float32 as the library has it; it ends the episode, which the library never does."""
    env, card = make_env(load_card("fetch-reach")), load_card("fetch-reach")
    found = set()
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        for _ in range(50):
            toward = 10 * (observation["desired_goal"] - observation["achieved_goal"])
            observation, reward, terminated, truncated, info = env.step(np.append(toward, 0).astype(np.float32))
            near = np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) < 0.05
            assert (info["is_success"], terminated, reward) == (near, near, 0.0 if near else -1.0)
            if terminated or truncated:
                break
        found.add(terminated)
        assert card.policy_input(observation).shape == (13,)
    assert found == {True}


def test_the_simulator_s_own_success_is_passed_on() -> None:
    fetch = load_card("fetch-reach")
    env = make_env(fetch.model_copy(update={"reward": Reward(rule="env")}))
    observation, info = env.reset(seed=0)
    assert info == {"is_success": None}
    words = []
    for _ in range(50):
        toward = 10 * (observation["desired_goal"] - observation["achieved_goal"])
        observation, reward, terminated, truncated, info = env.step(np.append(toward, 0).astype(np.float32))
        assert (reward, terminated) == (0.0 if info["is_success"] else -1.0, False)
        words.append(info["is_success"])
    assert (words[0], words[-1], truncated) == (False, True, True)


def test_dense_pays_as_the_library_s_dense_reward() -> None:
    card = load_card("pointmaze-umaze-dense")
    env, bare = make_env(card), make_env(card.model_copy(update={"reward": Reward(rule="dense", step=0, success=0)}))
    theirs = gymnasium.make("PointMaze_UMazeDense-v3", disable_env_checker=True).unwrapped
    Path(theirs.tmp_xml_file_path).unlink()
    for seed in range(3):
        env.reset(seed=seed)
        bare.reset(seed=seed)
        for action in actions(env, seed, 30):
            observation, reward, *_ = env.step(action)
            expected = theirs.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})
            assert bare.step(action)[1] == pytest.approx(expected, abs=1e-6)
            assert reward == pytest.approx(expected - 1, abs=1e-6)
    env.reset(seed=0, options={"start_cell": (3, 2)})
    while not (outcome := env.step(np.array([-1, 0], np.float32)))[2]:
        assert -1 < outcome[1] < 0
    assert outcome[1] == pytest.approx(np.exp(-0.44), abs=0.02)
    assert outcome[4] == {"is_success": True}


def test_choices_and_numbers() -> None:
    eight = pushes(8)
    still = np.zeros(9, np.float32)
    for k, (x, y) in enumerate([(0, 0), (1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7), (-1, 0), (-0.7, -0.7), (0, -1)]):
        np.testing.assert_allclose(eight.apply(k), (x, y), atol=0.01)
        assert eight.nearest((x, y)).argmax() == k
        np.testing.assert_array_equal(eight.apply(eight.nearest((x, y))), eight.apply(k))
    assert eight.nearest((0.3, -0.3))[0] == 1.0  # closer to standing still
    still[[2, 4]] = 0.2, 0.7  # the largest number counts, one-hot or not
    np.testing.assert_array_equal(eight.apply(still), eight.apply(4))
    for wrong in (-1, 9):
        with pytest.raises(ToolkitError, match="expected a number from 0 to 8, or 9 numbers"):
            eight.apply(wrong)
    assert Choices(np.eye(3), range(5, 8)).apply(np.array([0, 0, 1])) == 7
    wide = Scaled(gymnasium.spaces.Box(np.array([0.0, -2.0], np.float32), np.array([4.0, 2.0], np.float32)))
    np.testing.assert_array_equal(wide.apply(np.array([-1.0, 0.5])), [0.0, 1.0])
    with pytest.raises(ToolkitError, match="finite bounds"):
        Scaled(gymnasium.spaces.Box(-np.inf, np.inf, (2,)))


def test_waypoints_lead_to_the_goal_by_single_pushes() -> None:
    env = make_env(load_card("pointmaze-medium-discrete"))
    controller = WaypointController(env.maze, 10.0, 1.5)
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        controller.reset(np.random.default_rng(0), observation, 300)
        ended = False
        while not ended:
            action = env.actions.nearest(np.clip(controller.act(observation), -1, 1).tolist())
            observation, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
        assert terminated


@pytest.mark.parametrize("name", ["pointmaze-umaze-discrete", "cartpole", "pendulum", "fetch-reach"])
def test_recordings_come_back_as_they_were_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Through our reader and through Minari, then played again: the same numbers."""
    card = load_card(name)
    recipe = load_recipe("mixture" if card.in_maze else "random").model_copy(update={"episodes": 5})
    recipe = recipe.model_copy(update={"max_episode_steps": 40})
    folder = collect(recipe, card, tmp_path, seed=2, workers=1)
    episodes = read_minari(folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    theirs = list(minari.load_dataset(str(folder.relative_to(tmp_path))).iterate_episodes())
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        seeds = [int(file[f"episode_{index}"].attrs["seed"]) for index in range(5)]
    assert len(theirs) == len(episodes) == 5
    env = make_env(card.model_copy(update={"max_episode_steps": 40}))
    for index, (seed, recorded) in enumerate(zip(seeds, theirs, strict=True)):
        rows = slice(episodes.starts[index], episodes.starts[index + 1] - 1)
        np.testing.assert_array_equal(episodes.action[rows], recorded.actions)
        observation, _ = env.reset(seed=seed)
        for step, action in enumerate(recorded.actions):
            for key in observation:
                seen = recorded.observations[key] if env.achieved_dim else recorded.observations
                np.testing.assert_array_equal(seen[step], observation[key])
            observation, reward, terminated, truncated, _ = env.step(action)
            assert (recorded.rewards[step], recorded.terminations[step]) == (reward, terminated)
        assert (terminated or truncated) and len(recorded.actions) == env._steps
        if env.sizes.discrete:
            np.testing.assert_array_equal(recorded.actions.sum(1), 1)
            np.testing.assert_array_equal(recorded.actions.max(1), 1)
    again = relabel(card, episodes)
    np.testing.assert_array_equal(again.reward, episodes.reward)
    np.testing.assert_array_equal(again.terminated, episodes.terminated)
    other = collect(recipe, card, tmp_path / "two", seed=2, workers=2)
    assert (other / "data/main_data.hdf5").read_bytes() == (folder / "data/main_data.hdf5").read_bytes()


def test_dense_recordings_are_paid_as_the_simulator_pays(tmp_path: Path) -> None:
    card, recipe = load_card("pointmaze-umaze-dense"), load_recipe("mixture").model_copy(update={"episodes": 8})
    recorded = read_minari(collect(recipe, card, tmp_path))
    np.testing.assert_array_equal(relabel(card, recorded).reward, recorded.reward)
    assert len(np.unique(recorded.reward)) > 100


def test_shown_goals_are_the_card_s(tmp_path: Path) -> None:
    """The recording's goals lie all over the maze; training and evaluation see the one of the plain card."""
    plain, shown = load_card("pointmaze-medium"), load_card("pointmaze-medium-shown")
    assert plain.model_copy(update={"name": shown.name, "description": shown.description}) == shown.model_copy(
        update={"goal": plain.goal}
    )
    recorded = read_minari(collect(load_recipe("stitch").model_copy(update={"episodes": 20}), shown, tmp_path))
    assert len(np.unique(recorded.desired, axis=0)) > 10
    episodes, other = relabel(shown, recorded), relabel(plain, recorded)
    np.testing.assert_array_equal(shown.inputs(episodes)[:, 4:], np.broadcast_to(shown.goal_xy, episodes.desired.shape))
    np.testing.assert_array_equal(shown.inputs(episodes)[:, :4], plain.inputs(other))
    np.testing.assert_array_equal(episodes.reward, other.reward)
    observation, _ = make_env(shown).reset(seed=2)
    same, _ = make_env(plain).reset(seed=2)
    np.testing.assert_array_equal(shown.policy_input(observation)[4:], shown.goal_xy)
    np.testing.assert_array_equal(observation["observation"], same["observation"])


def test_only_a_maze_has_ways() -> None:
    maze, recipe = load_card("pointmaze-umaze").maze, load_recipe("navigate")
    with pytest.raises(ToolkitError, match=r"navigate needs a maze, .*; expected a recipe with routes: task"):
        recipe.controllers("Any-v0", None, 3)
    with pytest.raises(ToolkitError, match=r"controller waypoint: finds its way in a maze.*expected random"):
        load_recipe("mixture").controllers("Any-v0", None, 3)
    assert isinstance(recipe.controllers("Any-v0", maze, 2)[0], WaypointController)
    (random,) = load_recipe("random").controllers("Any-v0", None, 3)
    random.reset(np.random.default_rng(0), {}, 5)
    assert len(random.act({})) == 3
    assert isinstance(random, RandomController)
    with pytest.raises(ToolkitError, match="expected none, task pendulum is no maze"):
        make_env(load_card("pendulum")).reset(options={"start_cell": (1, 1)})


def test_evaluation_speaks_of_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """No success, no route; the same numbers for any number of processes; discounted as it was played."""
    monkeypatch.setattr("toolkit.evaluate.WORTH", 1e-9)
    card = load_card("cartpole")
    found = [
        evaluate(balance, card, 2, SHARE + 5, workers=workers, record_routes=True, gamma=0.9) for workers in (1, 2)
    ]
    for name in ("ret", "discounted", "steps", "start_inputs"):
        assert getattr(found[0], name).tobytes() == getattr(found[1], name).tobytes()
    result = found[0]
    assert np.isnan(result.success).all()
    assert np.isnan(result.path_ratio).all()
    assert (result.ret == result.steps).all()
    np.testing.assert_allclose(result.discounted, (1 - 0.9**result.steps) / (1 - 0.9))
    summary = result.summary()
    assert summary["success"] == {"iqm": None, "ci95": [None, None], "per_seed": [None, None], "episodes": SHARE + 5}
    assert summary["steps_to_goal"]["iqm"] is None
    assert summary["return"]["iqm"] > 100


def balance(inputs: np.ndarray) -> np.ndarray:
    """Push to where the pole falls; one-hot."""
    right = inputs[..., 2:3] + 0.3 * inputs[..., 3:4] > 0
    return np.concatenate([~right, right], axis=-1).astype(np.float32)


@pytest.mark.parametrize("reward", [Reward(), Reward(step=-0.5, success=2.0)])
def test_discounted_returns_of_sparse_tasks(reward: Reward) -> None:
    """The sum of what was played is the closed form: a price a step, another on the last."""
    card = load_card("pointmaze-umaze").model_copy(update={"reward": reward, "max_episode_steps": 60})
    result = evaluate(lambda x: np.clip(-x[..., :2] - 1, -1, 1), card, 2, 20, gamma=0.97)
    paid = result.steps - result.success
    expected = reward.step * (1 - 0.97**paid) / (1 - 0.97) + result.success * reward.success * 0.97**paid
    np.testing.assert_allclose(result.discounted, expected, rtol=1e-12, atol=1e-12)
    assert 0 < result.success.mean() < 1


def test_a_pool_without_goals_counts_what_it_is_paid() -> None:
    pool, env = EnvPool(load_card("pendulum"), 2), make_env(load_card("pendulum"))
    for lane in range(2):
        pool.reset(lane, seed=lane)
    env.reset(seed=1)
    total = 0.0
    for action in actions(env, 0, 10):
        pool.step(np.stack([action, action]))
        observation, reward, *_ = env.step(action)
        total += float(np.float32(reward))
    assert pool.achieved.shape == pool.desired.shape == (2, 0)
    np.testing.assert_array_equal(pool.inputs[1], observation["observation"].astype(np.float32))
    assert pool.total[1] == total
    assert np.isnan(pool.is_success).all()
    pool.reset(1, seed=0)
    assert pool.total[1] == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "os:Env-v0"}, "env_id: "),
        ({"env_id": "./mine:Env-v0"}, "env_id: "),
        ({"env_id": "HalfCheeta-v5"}, r"card.yaml:3: env_id: .*did you mean 'HalfCheetah-v5'"),
        ({"env_id": "FetchReach-v99"}, r"card.yaml:3: env_id: .*FetchReach-v4"),
        ({"goal": "{cell: [1, 1]}"}, "goal.cell, start, directions and tasks are for mazes"),
        ({"directions": "8"}, "goal.cell, start, directions and tasks are for mazes"),
        ({"reward": "{rule: sparse}"}, "reward.rule sparse needs a goal: expected goal.observed: true, or rule: env"),
        ({"env_id": "PointMaze_UMaze-v3", "goal": "{observed: true}"}, "in a maze the card draws the goals"),
        ({"reward": "{rule: own}"}, "expected one of sparse, dense, env"),
    ],
)
def test_wrong_cards_name_line_and_path(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    lines = {"name": "mine", "description": "mine", "env_id": "Pendulum-v1", "max_episode_steps": "9"}
    lines |= {"reward": "{rule: env}", **changes}
    (tmp_path / "card.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    with pytest.raises(ConfigError, match=message):
        load_card(tmp_path / "card.yaml")


@pytest.mark.parametrize(
    ("env_id", "goal", "kwargs", "message"),
    [
        ("Pendulum-v1", Goal(observed=True), {}, "has no goals; expected goal.observed: false"),
        ("FetchReach-v4", Goal(), {}, "sets goals; expected goal.observed: true"),
        ("FrozenLake-v1", Goal(), {}, "expected a Box of one axis"),
        ("Pendulum-v1", Goal(), {"gravity": 9.8}, "cannot be made with .*gravity"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_words(
    env_id: str, goal: Goal, kwargs: dict[str, float], message: str
) -> None:
    card = TaskCard(
        name="x", description="x", env_id=env_id, env_kwargs=kwargs, max_episode_steps=9, goal=goal,
        reward=Reward(rule="env"),
    )  # fmt: skip
    with pytest.raises(ToolkitError, match=message):
        make_env(card)


def test_the_time_limit_is_the_card_s() -> None:
    assert registry_spec("Pendulum-v1").max_episode_steps == 200
    env = make_env(load_card("pendulum").model_copy(update={"max_episode_steps": 250}))
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(250)]
    assert ends == [(False, False)] * 249 + [(False, True)]


def test_the_oracle_drives_by_single_pushes(tmp_path: Path) -> None:
    card = load_card("pointmaze-umaze-discrete")
    recording = collect(load_recipe("navigate").model_copy(update={"episodes": 20}), card, tmp_path)
    episodes = relabel(card, read_minari(recording))
    oracle = Oracle(card, coverage(episodes, card.maze, card.goal_xy, card.goal.radius).edges)
    assert evaluate(oracle, card, 1, 10).success.mean() == 1.0


def test_an_installed_package_brings_its_own_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_package(tmp_path, monkeypatch, "[toolkit.envs]\nslider = mine_envs\n")
    (tmp_path / "mine_envs.py").write_text(MINE)
    card = TaskCard(
        name="slider", description="x", env_id="MineSlider-v0", max_episode_steps=9, reward=Reward(rule="env")
    )
    recipe = load_recipe("random").model_copy(update={"episodes": 30})
    episodes = read_minari(collect(recipe, card, tmp_path / "data", workers=2))
    with pytest.raises(ToolkitError, match="is registered with a class; expected entry_point as text"):
        registry_spec("MineClass-v0")
    assert len(episodes) == 30 and episodes.obs.shape[1] == 1 and (episodes.reward <= 0).all()
    kept = read_minari(collect(recipe.model_copy(update={"keep": "success"}), card, tmp_path / "kept"))
    said = episodes.obs[episodes.starts[1:] - 1, 0] > 0
    assert 0 < len(kept) == said.sum() and (kept.obs[kept.starts[1:] - 1] > 0).all() and not kept.terminated.any()
    assert source_of("MineSlider-v0") == tmp_path / "mine_envs.py" and source_of("Hopper-v5") is None

    install_package(tmp_path, monkeypatch, "[toolkit.envs]\nlost = mine_lost\n")
    with pytest.raises(ToolkitError, match=r"toolkit\.envs.*; lost = mine_lost cannot be imported \(ModuleNot"):
        registry_spec("MineLost-v0")


class Careless(gymnasium.Env[np.ndarray, np.ndarray]):
    """Draws from a generator of its own, or shows what it did not promise."""

    observation_space = gymnasium.spaces.Box(-9, 9, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, fault: str = "") -> None:
        self._fault, self._rng = fault, np.random.default_rng()

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        rng = self._rng if self._fault == "chance" else self.np_random
        return rng.uniform(-1, 1, 2), {}

    def step(self, action: np.ndarray) -> Any:
        if self._fault == "old":
            return np.zeros(2), 0.0, False, {}
        return np.zeros(3 if self._fault == "shape" else 2), np.nan if self._fault == "pay" else 0.0, False, False, {}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("", ""),
        ("chance", r"reset\(seed=0\) gives another observation each time"),
        ("old", "fails when it is tried out: ValueError"),
        ("shape", r"observation: expected finite numbers of shape \(2,\)"),
        ("pay", "expected a finite reward, got nan"),
    ],
)
def test_a_simulator_is_tried_out(fault: str, told: str) -> None:
    name = f"Careless{fault.capitalize()}-v0"
    gymnasium.register(name, f"{__name__}:Careless", kwargs={"fault": fault})
    card = TaskCard(name="x", description="x", env_id=name, max_episode_steps=9, reward=Reward(rule="env"))
    with pytest.raises(ToolkitError, match=told) if told else contextlib.nullcontext():
        try_out(card)


MINE = """
import gymnasium
import numpy as np

class Slider(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 1)
        return self.at.astype(np.float32), {}
    def step(self, action):
        self.at = np.clip(self.at + action / 4, -1, 1)
        return self.at.astype(np.float32), -abs(float(self.at[0])), False, False, {"is_success": self.at[0] > 0}

gymnasium.register("MineSlider-v0", "mine_envs:Slider")
gymnasium.register("MineClass-v0", Slider)
"""

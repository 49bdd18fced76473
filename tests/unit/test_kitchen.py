"""The Franka arm's kitchen: tasks by name become one success, and the script does them one after the other."""

from __future__ import annotations

from pathlib import Path

import h5py
import minari
import numpy as np
import pytest

from toolkit.collect import collect
from toolkit.config import dump
from toolkit.controllers import Recipe, load_recipe
from toolkit.controllers.kitchen import HANDLES, KitchenController
from toolkit.data.minari import import_minari, read_minari
from toolkit.recorder import Recorder
from toolkit.recordings import check
from toolkit.tasks import TaskCard, TaskEnv, load_card, make_env, relabel
from toolkit.types import Spec, ToolkitError

CARD = load_card("kitchen-microwave-light-slide")


@pytest.fixture(scope="module")
def env() -> TaskEnv:
    return make_env(CARD)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = load_recipe("kitchen").model_copy(update={"episodes": 3})
    return collect(recipe, CARD, tmp_path_factory.mktemp("data"), seed=4)


def test_the_kitchen_shows_its_state_and_no_goal(env: TaskEnv) -> None:
    assert env.sizes == Spec(59, 9) and env.achieved_dim == 0 and env.maze is None
    observation, info = env.reset(seed=3)
    assert (list(observation), info) == (["observation"], {"is_success": False})
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(again["observation"], observation["observation"])
    assert (env.reset(seed=4)[0]["observation"] != observation["observation"]).all()
    _, reward, terminated, truncated, info = env.step(np.zeros(9, np.float32))
    assert (reward, terminated, truncated, info) == (0.0, False, False, {"is_success": False})


def test_the_script_does_all_tasks_in_order(env: TaskEnv) -> None:
    """Each pays one; with the last one the episode ends in success."""
    controller = KitchenController(CARD.env_id, tuple(HANDLES))
    observation, _ = env.reset(seed=1)
    controller.reset(np.random.default_rng(1), observation, CARD.max_episode_steps)
    paid, words, over = [], [], False
    while not over:
        at = observation["observation"][18 - 9 :]  # joints of the kitchen by their number in the model
        done = [abs(at[handle.joint] - handle.goal) < 0.3 for handle in HANDLES.values()]
        assert done == sorted(done, reverse=True)
        action = np.clip(controller.act(observation), -1, 1).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        paid.append(reward)
        words.append(info["is_success"])
        over = terminated or truncated
    assert sum(paid) == 3 and max(paid) == 1
    assert words == [False] * (len(words) - 1) + [True] and terminated
    assert len(paid) < 180


def test_noise_costs_time_only(env: TaskEnv) -> None:
    recipe = Recipe.model_validate({**dump(load_recipe("kitchen")), "noise": {"kind": "gaussian", "std": 0.2}})
    episodes, lost = Recorder(recipe, env, 0).block(0, 3)
    assert not lost and all(episode.terminations[-1] for episode in episodes)


def test_one_task_alone_is_a_card_of_its_own() -> None:
    card = CARD.model_copy(update={"env_kwargs": {"tasks_to_complete": ["slide cabinet"]}})
    recipe = Recipe.model_validate(
        {**dump(load_recipe("kitchen")), "controller": {"kind": "kitchen", "tasks": ["slide cabinet"]}}
    )
    episode = Recorder(recipe, make_env(card), 0).episode(0)
    assert episode.terminations[-1] and episode.rewards.sum() == 1 and len(episode.rewards) < 90


def test_what_was_recorded_comes_back_to_the_last_bit(
    env: TaskEnv, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through our reader and Minari's; seed and actions give an episode again, whatever was played before, from which
    one goes on as if nothing had come between: what exact resume rests on."""
    episodes = read_minari(recorded)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(recorded.parents[1]))
    theirs = list(minari.load_dataset(str(recorded.relative_to(recorded.parents[1]))).iterate_episodes())
    with h5py.File(recorded / "data" / "main_data.hdf5") as file:
        seeds = [int(file[f"episode_{index}"].attrs["seed"]) for index in range(3)]
    env.reset(seed=0)
    env.step(np.ones(9, np.float32))
    for played in (env, env.twin()):
        seed, episode, rows = seeds[1], theirs[1], slice(episodes.starts[1], episodes.starts[2] - 1)
        np.testing.assert_array_equal(episodes.action[rows], episode.actions)
        observation, _ = played.reset(seed=seed)
        for step, action in enumerate(episode.actions):
            np.testing.assert_array_equal(episode.observations[step], observation["observation"])
            observation, reward, terminated, _, _ = played.step(action)
            assert (episode.rewards[step], episode.terminations[step]) == (reward, terminated)
        np.testing.assert_array_equal(episode.observations[-1], observation["observation"])
        assert terminated
    assert relabel(CARD, episodes) is episodes


def test_the_audit_finds_nothing_in_it(recorded: Path) -> None:
    assert check(import_minari(recorded), CARD) == []


def test_the_controller_is_for_the_kitchen() -> None:
    recipe = load_recipe("kitchen")
    assert recipe.parts[0].controller.tasks == tuple(HANDLES)  # type: ignore[union-attr]
    with pytest.raises(ToolkitError, match="expected a task in FrankaKitchen, got FetchPush-v4"):
        recipe.controllers("FetchPush-v4", None, 4)


def test_a_task_the_kitchen_does_not_know_is_refused() -> None:
    card = TaskCard.model_validate({**dump(CARD), "env_kwargs": {"tasks_to_complete": ["washing up"]}})
    with pytest.raises(ToolkitError, match=r"cannot be made with .*washing up"):
        make_env(card)

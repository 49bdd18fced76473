"""The scripted controllers reach what they are sent to; noise and recipes do what they say."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from toolkit.collect import collect
from toolkit.config import ConfigError, dump
from toolkit.controllers import Controller, Noise, RandomController, Recipe, WaypointController, load_recipe
from toolkit.controllers.fetch import PushController
from toolkit.controllers.noise import DelayNoise
from toolkit.data.minari import read_minari
from toolkit.maze import Maze
from toolkit.recorder import Recorder, within_span
from toolkit.tasks import TaskEnv, load_card, make_env
from toolkit.types import Failed, ToolkitError


def drive(
    env: TaskEnv, controller: Controller, seed: int, std: float, start: tuple[int, int] | None = None
) -> int | None:
    """Steps to the goal, or None."""
    observation, _ = env.reset(seed=seed, options={"start_cell": start})
    rng = np.random.default_rng(seed)
    controller.reset(rng, observation, env.card.max_episode_steps)
    for step in range(env.card.max_episode_steps):
        action = np.array(controller.act(observation)) + rng.normal(0, std, 2)
        observation, _, terminated, _, _ = env.step(np.clip(action, -1, 1).astype(np.float32))
        if terminated:
            return step + 1
    return None


@pytest.mark.parametrize("kind", ["", "-gc"])
@pytest.mark.parametrize("size", ["umaze", "medium", "large"])
@pytest.mark.parametrize("std", [0.0, 0.5])
def test_waypoints_always_lead_to_the_goal(size: str, kind: str, std: float) -> None:
    env = make_env(load_card(f"pointmaze-{size}{kind}"))
    controller = WaypointController(env.maze, 10.0, 1.5)
    steps = [drive(env, controller, seed, std) for seed in range(20)]
    assert None not in steps


@pytest.mark.parametrize("size", ["umaze", "medium", "large"])
def test_time_limit_is_about_twice_the_longest_route(size: str) -> None:
    card = load_card(f"pointmaze-{size}")
    env = make_env(card)
    distance = env.maze.distances_to(card.goal.cell)
    farthest = [cell for cell in env.maze.free_cells if distance[cell] == distance.max()]
    steps = [
        drive(env, WaypointController(env.maze, 10.0, 1.5), seed, 0.0, cell) for seed in range(3) for cell in farthest
    ]
    assert 1.8 <= card.max_episode_steps / max(steps) <= 2.4


def test_a_push_into_a_dead_end_costs_a_detour_only() -> None:
    """Shoved to another corridor in the middle of a run, the controller plans from where it finds itself."""
    env = make_env(load_card("pointmaze-medium"))
    controller = WaypointController(env.maze, 10.0, 1.5)
    observation, _ = env.reset(seed=0, options={"start_cell": (1, 1)})
    controller.reset(np.random.default_rng(0), observation, 300)
    for step in range(300):
        if step in (60, 120):
            env._simulator.place(env.maze.cell_to_xy((1, 6) if step == 60 else (6, 1)), observation["desired_goal"])
        observation, _, terminated, _, _ = env.step(np.clip(controller.act(observation), -1, 1).astype(np.float32))
        if terminated:
            return
    pytest.fail("never reached the goal")


def test_random_walk_explores_smoothly_and_repeats_with_its_seed() -> None:
    env = make_env(load_card("pointmaze-medium").model_copy(update={"max_episode_steps": 2000}))
    controller, runs = RandomController(0.7, 30.0, 2), []
    for _ in range(2):
        observation, _ = env.reset(seed=1)
        controller.reset(np.random.default_rng(1), observation, 2000)
        actions, cells = [], set()
        for _ in range(2000):
            actions.append(controller.act(observation))
            observation, _, terminated, _, _ = env.step(np.clip(actions[-1], -1, 1).astype(np.float32))
            cells.add(tuple(env.maze.xy_to_cell(observation["achieved_goal"]).tolist()))
            if terminated:
                break
        runs.append((actions, cells))
    assert runs[0] == runs[1]
    assert len(runs[0][1]) >= 5
    jumps = np.diff(np.array(runs[0][0]), axis=0)
    assert np.abs(jumps).mean() < 0.5 * np.std(runs[0][0])


@pytest.mark.parametrize(
    ("noise", "memory"),
    [
        ({"kind": "gaussian", "std": 0.5}, 0.0),
        ({"kind": "ornstein-uhlenbeck", "std": 0.5, "steps": 10}, np.exp(-0.1)),
    ],
)
def test_additive_noise_has_its_spread_and_its_memory(noise: dict[str, object], memory: float) -> None:
    scale, shift = TypeAdapter(Noise).validate_python(noise).draw(np.random.default_rng(0), 40_000, 2)
    assert (scale == 1).all()
    assert shift.std(axis=0) == pytest.approx(0.5, rel=0.05)
    assert np.corrcoef(shift[1:, 0], shift[:-1, 0])[0, 1] == pytest.approx(memory, abs=0.02)


def test_epsilon_noise_replaces_its_share_of_actions() -> None:
    noise = TypeAdapter(Noise).validate_python({"kind": "epsilon-random", "epsilon": 0.3})
    scale, shift = noise.draw(np.random.default_rng(0), 20_000, 2)
    assert scale.mean() == pytest.approx(0.7, abs=0.01)
    assert (shift[scale[:, 0] == 1] == 0).all()
    replaced = shift[scale[:, 0] == 0]
    assert np.abs(replaced).max() <= 1
    assert replaced.std() == pytest.approx(1 / np.sqrt(3), rel=0.03)


def test_bursts_hold_one_random_action_for_their_length() -> None:
    noise = TypeAdapter(Noise).validate_python({"kind": "bursts", "share": 0.25, "steps": 12, "std": 0.5})
    scale, shift = noise.draw(np.random.default_rng(0), 60_000, 2)
    pushed = scale[:, 0] == 0
    assert pushed.mean() == pytest.approx(0.25, abs=0.02)
    assert np.abs(shift[pushed]).max() <= 1
    assert shift[~pushed].std() == pytest.approx(0.5, rel=0.02)
    held = (shift[1:] == shift[:-1]).all(1)[pushed[1:] & pushed[:-1]]
    assert held.mean() == pytest.approx(11 / 11.25, abs=0.01)  # a push follows a push one time in four


def test_gains_differ_from_episode_to_episode_and_stay_within_one() -> None:
    noise = TypeAdapter(Noise).validate_python({"kind": "gain", "spread": 0.2})
    gains = []
    for seed in range(2000):
        scale, shift = noise.draw(np.random.default_rng(seed), 3, 2)
        assert (scale == scale[0]).all() and (shift == 0).all()
        gains.append(float(scale[0, 0]))
    assert np.log(gains).std() == pytest.approx(0.2, rel=0.05)
    assert np.log(gains).mean() == pytest.approx(0.0, abs=0.02)


def test_a_delay_is_anything_up_to_its_longest() -> None:
    noise = TypeAdapter(Noise).validate_python({"kind": "delay", "steps": 3})
    assert {noise.late(np.random.default_rng(seed)) for seed in range(50)} == {0, 1, 2, 3}


def test_late_actions_are_those_of_earlier_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same episode with its actions two steps late: nothing at first, then what the controller wanted before."""
    env = make_env(load_card("pointmaze-umaze"))
    fields = {**dump(load_recipe("navigate")), "max_episode_steps": 50, "noise": {"kind": "delay", "steps": 2}}
    recorder = Recorder(Recipe.model_validate(fields), env, 0)
    wanted: list[tuple[float, ...]] = []
    (driver,) = recorder._controllers
    act = driver.act
    monkeypatch.setattr(driver, "act", lambda observation: wanted.append(act(observation)) or wanted[-1])
    monkeypatch.setattr(DelayNoise, "late", lambda self, rng: 2)
    actions = recorder.episode(0).actions
    assert (actions[:2] == 0).all()
    np.testing.assert_allclose(actions[2:], np.clip(wanted, -1, 1)[: len(actions) - 2], atol=1e-6)


@pytest.mark.parametrize(("task", "least"), [("reach", 1.0), ("push", 0.95), ("pick-and-place", 0.95), ("slide", 0.6)])
def test_the_arm_does_its_tasks(task: str, least: float) -> None:
    card = load_card(f"fetch-{task}")
    recipe = Recipe.model_validate({**dump(load_recipe("arm")), "noise": {"kind": "none"}})
    recorder = Recorder(recipe, make_env(card), 0)
    assert np.mean([episode.terminations[-1] for episode in recorder.block(0, 25)[0]]) >= least


def test_the_arms_controllers_are_for_the_arm() -> None:
    recipe = load_recipe("arm")
    assert isinstance(recipe.controllers("FetchPushDense-v4", None, 4)[0], PushController)
    with pytest.raises(ToolkitError, match="expected a task in FetchReach, FetchPush"):
        recipe.controllers("HalfCheetah-v5", None, 6)


def test_an_installed_controller_drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**dump(load_recipe("navigate")), "episodes": 30, "max_episode_steps": 3, "noise": {"kind": "none"}}
    card = load_card("pointmaze-umaze")
    env = make_env(card)

    def recipe(name: str, **arguments: object) -> Recipe:
        return Recipe.model_validate(
            fields | {"controller": {"kind": "installed", "name": name, "arguments": arguments}}
        )

    with pytest.raises(ToolkitError, match=r"no package names 'steady' as an entry point of toolkit\.controllers"):
        recipe("steady").controllers(card.env_id, env.maze, 2)
    install(tmp_path, monkeypatch)
    out = collect(recipe("steady", force=0.25), card, tmp_path / "data", workers=2)
    episodes = read_minari(out)
    moving = np.delete(np.arange(len(episodes.action)), episodes.starts[1:] - 1)
    assert len(episodes) == 30 and (episodes.action[moving] == 0.25).all()
    with pytest.raises(ToolkitError, match="half: expected a method act"):
        recipe("half").controllers(card.env_id, env.maze, 2)


@pytest.mark.parametrize(
    ("control", "told"), [((0.0,) * 3, "answers with 2 numbers here, not 3"), ((0.0, math.nan), "NaN or infinity")]
)
def test_what_is_no_control_is_told_of(control: tuple[float, ...], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WaypointController, "act", lambda self, observation: control)
    kept, (lost,) = Recorder(load_recipe("navigate"), make_env(load_card("pointmaze-umaze")), 0).block(0, 1)
    assert not kept and told in lost.reason


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with controllers, for this process and those that collect."""
    names = "".join(f"{name.lower()} = mine_controllers:{name}\n" for name in ("Steady", "Half", "Fragile"))
    install_package(folder, monkeypatch, f"[toolkit.controllers]\n{names}")
    (folder / "mine_controllers.py").write_text(INSTALLED)


def install_package(folder: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str) -> None:
    """A package that brings what `entry_points` says, for this process and others; its modules go into `folder`."""
    (folder / "mine-1.0.dist-info").mkdir(exist_ok=True)
    (folder / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "mine-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


INSTALLED = """
import os, signal

class Steady:
    def __init__(self, env_id, maze, control_dim, force):
        assert env_id == "PointMaze_UMaze-v3" and maze is not None
        self.action = (force,) * control_dim
    def reset(self, rng, observation, steps): print("ready")
    def act(self, observation): return self.action
class Half:
    def __init__(self, env_id, maze, control_dim): pass
    def reset(self, rng, observation, steps): pass
class Fragile:
    def __init__(self, env_id, maze, control_dim, end, share): self.end, self.share = end, share
    def reset(self, rng, observation, steps): self.step, self.fails = 0, rng.random() < self.share
    def act(self, observation):
        self.step += 1
        if self.fails and self.step == 3:
            if self.end == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.end == "raises":
                raise ArithmeticError("lost its way")
        return 0.1, 0.2
"""


@pytest.mark.parametrize(("end", "workers"), [("raises", 1), ("raises", 2), ("dies", 2)])
def test_an_episode_that_fails_is_left_out_and_named(
    end: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch)
    card = load_card("pointmaze-umaze")
    fields = {**dump(load_recipe("navigate")), "episodes": 60, "max_episode_steps": 5, "noise": {"kind": "none"}}

    def made(end: str, share: float) -> Path:
        controller = {"kind": "installed", "name": "fragile", "arguments": {"end": end, "share": share}}
        recipe = Recipe.model_validate(fields | {"controller": controller})
        return collect(recipe, card, tmp_path / f"{end}-{share}", workers=workers)

    whole, partial = made("goes on", 0.05), made(end, 0.05)
    lost = json.loads((partial / "data/metadata.json").read_text())["toolkit"]["lost"]
    assert 1 <= len(lost) <= 6
    said = capsys.readouterr().err.splitlines()
    for episode, line in zip(lost, said, strict=True):
        assert episode["step"] == 2
        assert line.startswith(f"pointmaze-umaze: episode {episode['episode']}, seed {episode['seed']}, step 2: ")
        assert line.endswith(
            "ArithmeticError: lost its way; the episode is left out"
            if end == "raises"
            else "its process ended with status -9; the episode is left out"
        )
    kept = np.delete(np.arange(60), [episode["episode"] for episode in lost])
    theirs, mine = read_minari(whole), read_minari(partial)
    rows = np.concatenate([np.arange(theirs.starts[i], theirs.starts[i + 1]) for i in kept])
    np.testing.assert_array_equal(mine.obs, theirs.obs[rows])
    if end == "raises":
        with pytest.raises(Failed, match="11 episodes failed, the last one in pointmaze-umaze"):
            made(end, 0.6)
        assert not list(tmp_path.glob(f"{end}-0.6/**/umaze*"))


def test_no_noise_changes_nothing() -> None:
    scale, shift = TypeAdapter(Noise).validate_python({"kind": "none"}).draw(np.random.default_rng(0), 5, 2)
    assert (scale == 1).all()
    assert (shift == 0).all()


@pytest.mark.parametrize("name", ["navigate", "stitch", "mixture"])
def test_shipped_recipes_load_and_name_a_task(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    load_card(recipe.task)


def test_parts_get_their_share_everywhere_in_the_data() -> None:
    recipe = load_recipe("mixture")
    parts = [recipe.part_of(index) for index in range(1000)]
    for window in (parts[:100], parts[450:550], parts[900:]):
        share = Counter(window)
        for index, part in enumerate(recipe.parts):
            assert share[index] == pytest.approx(100 * part.weight, abs=3)


@pytest.mark.parametrize(("name", "low", "high"), [("stitch", 1, 4), ("navigate", 5, 11)])
def test_routes_have_the_length_they_say(name: str, low: int, high: int) -> None:
    recipe, maze, rng = load_recipe(name), load_card("pointmaze-medium").maze, np.random.default_rng(0)
    lengths = [maze.steps_between(*recipe.draw_cells(maze, rng)) for _ in range(500)]
    assert (min(lengths), max(lengths)) == (low, high)


def test_navigate_takes_the_farthest_where_nothing_is_far_enough() -> None:
    recipe, maze, rng = load_recipe("navigate"), load_card("pointmaze-umaze").maze, np.random.default_rng(0)
    starts = {}
    for _ in range(200):
        start, goal = recipe.draw_cells(maze, rng)
        starts[start] = maze.steps_between(start, goal)
    assert starts[2, 3] == 3  # the middle of the U
    assert len(starts) == len(maze.free_cells)


@pytest.mark.parametrize("name", ["navigate", "stitch"])
def test_routes_stay_in_the_part_of_the_maze_where_they_start(name: str) -> None:
    """Two corridors and a cell without neighbours, from which nothing leads away."""
    maze = Maze([[1] * 9, [1, 0, 0, 0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0, 1], [1] * 9])
    recipe, rng = load_recipe(name), np.random.default_rng(0)
    found = {tuple(recipe.draw_cells(maze, rng)) for _ in range(200)}
    assert {start for start, _ in found} == {(1, 1), (1, 2), (1, 3), (1, 7), (2, 7)}
    assert all(maze.steps_between(start, goal) > 0 for start, goal in found)


def test_the_draws_of_routes_stay_what_they_were() -> None:
    maze, rng = load_card("pointmaze-medium").maze, np.random.default_rng(0)
    assert [load_recipe(name).draw_cells(maze, rng) for name in ("navigate", "stitch") * 2] == [
        [(6, 2), (3, 3)],
        [(4, 2), (2, 2)],
        [(2, 6), (1, 1)],
        [(1, 2), (1, 1)],
    ]


def test_on_the_way_other_places_are_aimed_at(tmp_path: Path) -> None:
    recipe, card = load_recipe("stitch"), load_card("pointmaze-medium")
    plain, farther = dump(recipe) | {"episodes": 40, "noise": {"kind": "none"}}, {}
    for via in (0, 4):
        made = Recipe.model_validate({**plain, "name": f"via-{via}", "via": via, "via_steps": 10.0})
        assert len(made.draw_cells(card.maze, np.random.default_rng(0))) == via + 2
        episodes = read_minari(collect(made, card, tmp_path))
        farther[via] = 0
        for start, stop in itertools.pairwise(episodes.starts):
            assert within_span(card.maze, episodes.achieved[start:stop], recipe.max_cells) == stop - start - 1
            goal = tuple(card.maze.xy_to_cell(episodes.desired[start]).tolist())
            cells = card.maze.xy_to_cell(episodes.achieved[start:stop])
            farther[via] += bool((np.diff(card.maze.distances_to(goal)[cells[:, 0], cells[:, 1]]) > 0).any())
    assert farther[0] == 0 and farther[4] > 10


def test_task_routes_leave_the_drawing_to_the_task() -> None:
    assert load_recipe("mixture").draw_cells(load_card("pointmaze-medium").maze, np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("controller: {kind: waypoint}\nmixture: [{controller: {kind: random}}]", "either controller .* or mixture"),
        ("noise: {kind: gaussian, std: 1}", "either controller .* or mixture"),
        ("controller: {kind: waypoints}", "controller"),
        ("controller: {kind: waypoint}\nnoise: {kind: gaussian, std: -1}", "std"),
        ("controller: {kind: waypoint}\nnoise: {kind: gaussian, sdt: 1}", "did you mean 'std'"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    head = "name: x\ndescription: x\ntask: pointmaze-medium\nepisodes: 1\nmax_episode_steps: 10\nroutes: task\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(head + text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_recipe_round_trip() -> None:
    recipe = load_recipe("mixture")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_the_giant_maze_has_rings_and_no_dead_ends() -> None:
    maze = load_card("pointmaze-giant").maze
    ways = [len(maze.neighbours(cell)) for cell in maze.free_cells]
    assert maze.wall.shape == (13, 17) and len(ways) == 113
    assert sum(way > 2 for way in ways) == 31 and min(ways) == 2
    assert load_card("pointmaze-giant-gc").maze is maze

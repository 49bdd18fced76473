"""Collected data sets: the same bytes for any number of workers, replayable, and pieces that stay pieces."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from toolkit import collect as module
from toolkit.collect import collect, dataset_id
from toolkit.controllers import Recipe, load_recipe
from toolkit.data.minari import read_minari
from toolkit.maze import Maze
from toolkit.recorder import within_span
from toolkit.stitching import coverage
from toolkit.tasks import Goal, TaskCard, load_card, make_env, relabel
from toolkit.types import Failed, ToolkitError

ROOT = Path(__file__).parents[2]


def small(name: str, episodes: int, **changes: object) -> Recipe:
    return load_recipe(name).model_copy(update={"episodes": episodes, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").iterdir())}


def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    recipe, card = small("mixture", 60, max_episode_steps=80), load_card("pointmaze-umaze")
    folders = [collect(recipe, card, tmp_path / str(workers), seed=5, workers=workers) for workers in (1, 2)]
    first, *others = [contents(folder) for folder in folders]
    assert all(other == first for other in others)
    assert [path.name for path in folders[1].parent.iterdir()] == ["umaze-mixture-v0"]
    other_seed = collect(recipe, card, tmp_path / "other", seed=6)
    assert contents(other_seed)["main_data.hdf5"] != first["main_data.hdf5"]


def test_a_maze_without_ways_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    rows = [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]]
    changes = {"env_kwargs": {"maze_map": rows}, "goal": Goal(cell=(1, 1))}
    card = load_card("pointmaze-umaze").model_copy(update=changes)
    for name in ("stitch", "navigate"):
        with pytest.raises(ToolkitError, match="expected a maze with cells of floor side by side"):
            collect(small(name, 20), card, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_episode_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    card = load_card("pointmaze-umaze")
    few, many = (
        read_minari(collect(small("stitch", n), card, tmp_path / str(n), seed=1)) for n in (3, module.BLOCK + 5)
    )
    np.testing.assert_array_equal(few.obs, many.obs[: len(few.obs)])


@pytest.mark.parametrize("name", ["navigate", "mixture", "stitch"])
def test_every_transition_is_what_the_simulator_does(tmp_path: Path, name: str) -> None:
    """The recorded seeds and actions give the recorded observations, rewards and ends again, to the last bit."""
    card, recipe = load_card("pointmaze-umaze-gc"), small(name, 8)
    folder = collect(recipe, card, tmp_path, seed=2)
    episodes = read_minari(folder)
    env = make_env(card.model_copy(update={"max_episode_steps": recipe.max_episode_steps}))
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        seeds = [int(file[f"episode_{index}"].attrs["seed"]) for index in range(len(episodes))]
    for seed, first, stop in zip(seeds, episodes.starts[:-1], episodes.starts[1:], strict=True):
        cells = {"start_cell": episodes.achieved[first], "goal_cell": episodes.desired[first]}
        options = {key: tuple(env.maze.xy_to_cell(xy).tolist()) for key, xy in cells.items()}
        observation, _ = env.reset(seed=seed, options=None if recipe.routes == "task" else options)
        for row in range(first, stop):
            np.testing.assert_array_equal(episodes.obs[row], observation["observation"].astype(np.float32))
            np.testing.assert_array_equal(episodes.achieved[row], observation["achieved_goal"].astype(np.float32))
            np.testing.assert_array_equal(episodes.desired[row], observation["desired_goal"])
            if row < stop - 1:
                observation, reward, terminated, _, _ = env.step(episodes.action[row])
                assert (episodes.reward[row], episodes.terminated[row]) == (reward, terminated)
                assert episodes.truncated[row] == (row == stop - 2 and not terminated)


@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_no_piece_joins_a_far_start_to_the_goal(tmp_path: Path, noise: float) -> None:
    """Even where noise drives the ball astray: starts five cells away and more are served by no episode."""
    card, recipe = load_card("pointmaze-medium"), load_recipe("stitch").model_dump()
    recipe = Recipe.model_validate({**recipe, "episodes": 250, "noise": {"kind": "gaussian", "std": noise}})
    episodes = read_minari(collect(recipe, card, tmp_path, seed=0, workers=2))
    maze = card.maze
    for index in range(len(episodes)):
        cells = maze.xy_to_cell(episodes.achieved[episodes.starts[index] : episodes.starts[index + 1]])
        visited = {(row, col) for row, col in cells.tolist()}
        assert max(maze.steps_between(a, b) for a in visited for b in visited) <= recipe.max_cells
    task = relabel(card, episodes)
    assert task.terminated.sum() >= 2
    far = {cell for cell in maze.free_cells if maze.steps_between(cell, card.goal.cell) > recipe.max_cells}
    found = {(row, col) for row, col in np.asarray(coverage(task, maze, card.goal_xy, card.goal.radius).far_starts)}
    assert far <= found


def test_a_route_is_cut_before_it_spans_too_much() -> None:
    corridor = Maze([[1] * 9, [1, *[0] * 7, 1], [1] * 9])
    xs = np.array([-3.0, -2.6, -2.1, -1.0, -2.0, 0.0, 0.9, 1.6, 3.0])  # cells 1 1 1(.9) 3 2 4 5 6(.6) 8
    route = np.stack([xs, np.zeros(9)], axis=1)
    cells = corridor.xy_to_cell(route)[:, 1].tolist()
    for limit in range(1, 8):
        length = within_span(corridor, route, limit)
        kept = cells[: length + 1]
        assert max(kept) - min(kept) <= limit
        assert length == 8 or max(cells[: length + 2]) - min(cells[: length + 2]) > limit


def test_metadata_says_how_to_make_the_data_again(tmp_path: Path) -> None:
    card, recipe = load_card("pointmaze-umaze"), small("stitch", 5)
    folder = collect(recipe, card, tmp_path, seed=9)
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    made = metadata["toolkit"]
    assert made["seed"] == 9
    assert Recipe.model_validate(made["recipe"]) == recipe
    again = TaskCard.model_validate(made["task"])
    assert again == card.model_copy(update={"max_episode_steps": recipe.max_episode_steps})
    names = [requirement.partition("==")[0] for requirement in metadata["requirements"]]
    assert names == ["mujoco", "gymnasium", "gymnasium-robotics", "offline2online-toolkit"]
    repeated = collect(Recipe.model_validate(made["recipe"]), again, tmp_path / "again", seed=9)
    assert contents(repeated) == contents(folder)


def test_progress_counts_every_episode(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    collect(small("stitch", 60), load_card("pointmaze-umaze"), tmp_path, workers=2, progress=lambda *c: seen.append(c))
    assert seen == [(25, 60), (50, 60), (60, 60)]


@pytest.mark.parametrize(
    ("task", "expected"),
    [("pointmaze-medium", "pointmaze/medium-stitch-v0"), ("pointmaze-umaze-gc", "pointmaze/umaze-gc-stitch-v0")],
)
def test_ids(task: str, expected: str) -> None:
    assert dataset_id(load_recipe("stitch"), load_card(task)) == expected


def test_an_existing_data_set_is_kept_and_found_before_any_work(tmp_path: Path) -> None:
    card, recipe = load_card("pointmaze-umaze"), small("stitch", 3)
    folder = collect(recipe, card, tmp_path)
    before = contents(folder)
    with pytest.raises(ToolkitError, match="exists already"):
        collect(recipe, card, tmp_path, seed=1, progress=lambda *_: pytest.fail("recorded for nothing"))
    assert contents(folder) == before
    assert contents(collect(recipe, card, tmp_path, seed=1, replace=True)) != before


def test_a_dying_worker_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_start", lambda job: subprocess.Popen(["false"], stdout=subprocess.PIPE, text=True))
    with pytest.raises(Failed, match="worker 0 ended with status 1 while recording episodes 0 to 24"):
        collect(small("stitch", 60), load_card("pointmaze-umaze"), tmp_path, workers=2)
    assert not list(tmp_path.glob("**/umaze*"))
    monkeypatch.undo()
    assert len(read_minari(collect(small("stitch", 5), load_card("pointmaze-umaze"), tmp_path))) == 5


def test_success_cannot_be_kept_where_the_task_does_not_say_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="keep: success: task pendulum does not say what success is"):
        collect(small("random", 30, keep="success"), load_card("pendulum"), tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_of_the_episodes_played_those_that_succeed_are_kept(tmp_path: Path, workers: int) -> None:
    card = load_card("pointmaze-umaze")
    recipe = small("mixture", 40).model_copy(update={"max_episode_steps": 80})
    everything = read_minari(collect(recipe, card, tmp_path / "all"))
    seen: list[tuple[int, int]] = []
    chosen = recipe.model_copy(update={"keep": "success"})
    folder = collect(chosen, card, tmp_path, workers=workers, progress=lambda *count: seen.append(count))
    found = read_minari(folder)
    ends = everything.starts[1:] - 2
    assert 0 < len(found) == everything.terminated[ends].sum() < 40
    assert found.terminated[found.starts[1:] - 2].all()
    assert seen == [(25, 40), (40, 40)]
    nothing = chosen.model_copy(update={"max_episode_steps": 1, "name": "nothing"})
    with pytest.raises(ToolkitError, match="recipe nothing: keep: success: none of 40 episodes"):
        collect(nothing, card, tmp_path, workers=workers)
    assert list(folder.parent.iterdir()) == [folder]


def test_killed_in_the_middle_it_starts_afresh(tmp_path: Path) -> None:
    """After kill -9 workers end by themselves, no half data set appears, and the next run is a whole one."""
    code = (
        "from pathlib import Path; from toolkit.collect import collect; from toolkit.controllers import load_recipe;"
        "from toolkit.tasks import load_card;"
        f"collect(load_recipe('stitch'), load_card('pointmaze-umaze'), Path({str(tmp_path)!r}), workers=2,"
        "progress=lambda *c: print(*c, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("25 ")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    hidden = [path.name for path in (tmp_path / "pointmaze").iterdir()]
    assert sorted(hidden) == [".umaze-stitch-v0.blocks", ".umaze-stitch-v0.partial"]
    blocks = tmp_path / "pointmaze" / ".umaze-stitch-v0.blocks"
    deadline, before = time.monotonic() + 30, -1
    while time.monotonic() < deadline and (now := len(list(blocks.iterdir()))) != before:
        before = now
        time.sleep(0.5)
    assert now < 40  # of 80: the workers stopped
    folder = collect(small("stitch", 5), load_card("pointmaze-umaze"), tmp_path)
    assert list(folder.parent.iterdir()) == [folder]


def test_workers_import_no_torch() -> None:
    code = "import toolkit.collect, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

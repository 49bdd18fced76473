"""Collecting a data set: a recipe's scripted controllers drive a task's simulator, and Minari gets the episodes.

An episode depends on the seed and its own index only, so the data set has the same bytes for any number of workers.
Workers are plain Python processes that run this module; they import no torch and hand blocks of episodes back as
files, which the parent writes in order while they go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import toolkit
from toolkit.config import dump
from toolkit.controllers import Recipe
from toolkit.data.minari import dataset_path
from toolkit.data.minari_writer import RecordedEpisode, write_minari
from toolkit.maze import Maze
from toolkit.tasks import TaskCard, TaskEnv, make_env
from toolkit.tasks.pointmaze import Observation
from toolkit.types import FloatArray, Json

BLOCK = 25  # episodes handed over at once
DISTRIBUTION = "offline2online-toolkit"

Block = list[RecordedEpisode]
Progress = Callable[[int, int], None]  # episodes done, episodes in all


def dataset_id(recipe: Recipe, card: TaskCard) -> str:
    """Minari id of the data set a recipe makes for a task: pointmaze/medium-stitch-v0."""
    family, _, variant = card.name.partition("-")
    return f"{family}/{variant + '-' if variant else ''}{recipe.name}-v0"


def collect(
    recipe: Recipe,
    card: TaskCard,
    out: Path,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
    replace: bool = False,
) -> Path:
    """Record `recipe.episodes` episodes of the task below the Minari root `out`; the data set's folder.

    Raises ToolkitError where the data set exists already, unless `replace`.
    """
    name = dataset_id(recipe, card)
    card = card.model_copy(update={"max_episode_steps": recipe.max_episode_steps})
    env = make_env(card)
    handover = _handover(out, name)
    blocks = _record_here(recipe, env, seed) if workers <= 1 else _record_apart(recipe, card, seed, workers, handover)

    def episodes() -> Iterator[RecordedEpisode]:
        done = 0
        with contextlib.closing(blocks):
            for block in blocks:
                yield from block
                done += len(block)
                if progress:
                    progress(done, recipe.episodes)

    spec = env.env_spec
    spec.max_episode_steps = recipe.max_episode_steps
    return write_minari(
        episodes(),
        name,
        out,
        observation_space=env.observation_space if env.goal_dim else env.observation_space["observation"],
        action_space=env.actions.recorded,
        env_spec=spec,
        metadata=_describe(recipe, card, seed),
        replace=replace,
    )


class Recorder:
    """Plays the episodes of one data set in one environment, each from the seed and its index alone."""

    def __init__(self, recipe: Recipe, env: TaskEnv, seed: int) -> None:
        self._recipe, self._env, self._seed = recipe, env, seed
        self._controllers = recipe.controllers(env.maze, env.actions.control_dim)

    def block(self, start: int, stop: int) -> Block:
        """Episodes `start` to `stop` - 1."""
        return [self.episode(index) for index in range(start, stop)]

    def episode(self, index: int) -> RecordedEpisode:
        """One episode, whole or, in a recipe of pieces, cut where it would span too much."""
        rng = np.random.default_rng([self._seed, index])
        env_seed = int(rng.integers(2**31))
        maze = self._env.maze
        cells = None if maze is None else self._recipe.draw_cells(maze, rng)
        options = None if cells is None else dict(zip(("start_cell", "goal_cell"), cells, strict=True))
        seen, actions, rewards, terminated = self._play(index, rng, env_seed, options)
        length = len(rewards)
        if maze is not None and self._recipe.routes == "stitch":
            route = np.array([observation["achieved_goal"] for observation in seen])
            length = within_span(maze, route, self._recipe.max_cells)
        reached = terminated and length == len(rewards)
        last = np.arange(length) == length - 1
        return RecordedEpisode(
            seed=env_seed,
            observations={key: np.array([observation[key] for observation in seen[: length + 1]]) for key in seen[0]},
            actions=actions[:length],
            rewards=np.array(rewards[:length], np.float64),
            terminations=last & reached,
            truncations=last & (not reached),
        )

    def _play(
        self, index: int, rng: np.random.Generator, env_seed: int, options: Json | None
    ) -> tuple[list[Observation], FloatArray, list[float], bool]:
        """Observations (T + 1), actions (at least T, A), rewards (T) and whether the goal was reached."""
        env, which = self._env, self._recipe.part_of(index)
        limit, acting = env.card.max_episode_steps, env.actions
        observation, _ = env.reset(seed=env_seed, options=options)
        controller = self._controllers[which]
        controller.reset(rng, observation, limit)
        scale, shift = (rows.tolist() for rows in self._recipe.parts[which].noise.draw(rng, limit, acting.control_dim))
        actions = np.zeros((limit, acting.dim), np.float32)
        seen, rewards = [observation], list[float]()
        for action, share, offset in zip(actions, scale, shift, strict=True):
            wanted = zip(controller.act(observation), offset, strict=True)
            action[:] = acting.nearest([min(max(share[0] * number + noise, -1.0), 1.0) for number, noise in wanted])
            observation, reward, terminated, truncated, _ = env.step(action)
            seen.append(observation)
            rewards.append(reward)
            if terminated or truncated:
                break
        return seen, actions, rewards, terminated


def within_span(maze: Maze, xy: npt.NDArray[np.float64], max_cells: int) -> int:
    """Transitions of the route `xy` (T + 1, 2) until it first holds two cells more than `max_cells` apart."""
    cells = maze.xy_to_cell(xy)
    entered = np.flatnonzero(np.concatenate([[True], (np.diff(cells, axis=0) != 0).any(axis=1)]))
    visited = np.zeros(maze.wall.shape, np.bool_)
    for row in entered:
        cell = (int(cells[row, 0]), int(cells[row, 1]))
        if not maze.is_free(cell):  # pressed into a wall by rounding
            continue
        visited[cell] = True
        if maze.distances_to(cell)[visited].max() > max_cells:
            return int(row) - 1
    return len(xy) - 1


def _handover(out: Path, name: str) -> Path:
    """Hidden folder beside the data set where workers leave their blocks."""
    target = dataset_path(name, out)
    folder = target.with_name(f".{target.name}.blocks")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    return folder


def _blocks(episodes: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, episodes)) for start in range(0, episodes, BLOCK)]


def _record_here(recipe: Recipe, env: TaskEnv, seed: int) -> Generator[Block, None, None]:
    recorder = Recorder(recipe, env, seed)
    for start, stop in _blocks(recipe.episodes):
        yield recorder.block(start, stop)


def _record_apart(
    recipe: Recipe, card: TaskCard, seed: int, workers: int, folder: Path
) -> Generator[Block, None, None]:
    """Blocks in order; block k is recorded by worker process k % W, which prints a line when the file is there."""
    blocks = _blocks(recipe.episodes)
    workers = min(workers, len(blocks))
    folder.mkdir(parents=True, exist_ok=True)
    job = {"recipe": dump(recipe), "card": dump(card), "seed": seed, "folder": str(folder)}
    processes = []
    try:
        for worker in range(workers):
            processes.append(_start({**job, "blocks": blocks[worker::workers]}))
        for number, (start, stop) in enumerate(blocks):
            process = processes[number % workers]
            if process.stdout.readline().split() != [str(start)]:
                raise RuntimeError(
                    f"collection worker {number % workers} ended with status {process.wait()} while recording "
                    f"episodes {start} to {stop - 1}; what it printed is above"
                )
            yield _load(folder / f"{start}.npz")
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _start(job: Json) -> Any:
    """A worker process with its job on standard input; -P keeps the user's folder out of its imports."""
    paths = [str(Path(toolkit.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "toolkit.collect"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    with process.stdin as stdin:
        json.dump(job, stdin)
    return process


def _work() -> None:
    """A worker's life: a job in, blocks of episodes out as files, a line for each. Ends when nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and ends its workers
    job = json.load(sys.stdin)
    recipe, card = Recipe.model_validate(job["recipe"]), TaskCard.model_validate(job["card"])
    recorder = Recorder(recipe, make_env(card), job["seed"])
    for start, stop in job["blocks"]:
        _save(Path(job["folder"]) / f"{start}.npz", recorder.block(start, stop))
        try:
            print(start, flush=True)
        except BrokenPipeError:
            os._exit(1)


def _save(path: Path, block: Block) -> None:
    arrays = {f"observations/{key}": [e.observations[key] for e in block] for key in block[0].observations}
    arrays |= {key: [getattr(e, key) for e in block] for key in ("actions", "rewards", "terminations", "truncations")}
    packed: dict[str, Any] = {key: np.concatenate(rows) for key, rows in arrays.items()}
    np.savez(path, seed=np.array([e.seed for e in block], np.int64), length=[len(e.rewards) for e in block], **packed)


def _load(path: Path) -> Block:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    path.unlink()
    seeds, lengths = arrays.pop("seed"), arrays.pop("length")
    parts = {
        key: np.split(rows, np.cumsum(lengths + key.startswith("observations/"))[:-1]) for key, rows in arrays.items()
    }
    return [
        RecordedEpisode(
            seed=int(seed),
            observations={key.partition("/")[2]: parts[key][i] for key in parts if key.startswith("observations/")},
            **{key: parts[key][i] for key in ("actions", "rewards", "terminations", "truncations")},
        )
        for i, seed in enumerate(seeds)
    ]


def _describe(recipe: Recipe, card: TaskCard, seed: int) -> Json:
    """Metadata that says how to make the same data again."""
    packages = ("mujoco", "gymnasium", "gymnasium-robotics")
    requirements = [f"{name}=={version(name)}" for name in packages]
    return {
        "algorithm_name": f"scripted controllers, recipe {recipe.name}",
        "description": f"{recipe.description}. Actions, rewards, terminations and truncations follow the task card "
        "below, not the environment of env_spec.",
        "requirements": [*requirements, f"{DISTRIBUTION}=={toolkit.__version__}"],
        "toolkit": {"version": toolkit.__version__, "seed": seed, "recipe": dump(recipe), "task": dump(card)},
    }


if __name__ == "__main__":
    _work()

"""Playing the episodes of a recipe in one environment."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toolkit.controllers import Recipe
from toolkit.data.minari_writer import RecordedEpisode
from toolkit.maze import Cell, Maze
from toolkit.tasks import TaskEnv
from toolkit.types import FloatArray, IntArray, Observation, ToolkitError

PLACE = 3  # numbers that say where a recorder is: episode, seed of the environment, step

Block = list[RecordedEpisode]


class Lost(NamedTuple):
    """An episode that failed while it was played, and is not recorded."""

    episode: int
    seed: int
    step: int
    reason: str


class Recorder:
    """Plays the episodes of one data set in one environment, each from the seed and its index alone.

    `place` always holds episode, seed of the environment and step, for who looks after the process has died.
    """

    def __init__(self, recipe: Recipe, env: TaskEnv, seed: int, place: IntArray | None = None) -> None:
        self._recipe, self._env, self._seed = recipe, env, seed
        self._controllers = recipe.controllers(env.card.env_id, env.maze, env.actions.control_dim)
        self.place = np.full(PLACE, -1) if place is None else place
        self._success: bool | None = None  # what the last step said

    def check(self) -> None:
        """Let every controller see the task once. Raises ToolkitError for one, routes or a `keep` that do not fit."""
        observation, _ = self._env.reset(seed=self._seed)
        if self._env.maze is not None:
            self._recipe.draw_cells(self._env.maze, np.random.default_rng(self._seed))
        for controller in self._controllers:
            controller.reset(np.random.default_rng(self._seed), observation, self._env.card.max_episode_steps)
        if self._recipe.keep != "all":
            still = np.asarray(self._env.actions.nearest([0.0] * self._env.actions.control_dim), np.float32)
            if self._env.step(still)[-1]["is_success"] is None:
                raise ToolkitError(
                    f"recipe {self._recipe.name}: keep: {self._recipe.keep}: task {self._env.card.name} does not say "
                    "what success is; expected keep: all"
                )

    def block(self, start: int, stop: int, skip: tuple[int, ...] = ()) -> tuple[Block, list[Lost]]:
        """What is to be kept of episodes `start` to `stop` - 1 without those to `skip`, and those that failed."""
        block, lost = Block(), list[Lost]()
        for index in range(start, stop):
            try:
                if index not in skip:
                    episode = self.episode(index)
                    if self._recipe.keep == "all" or self._succeeded(episode):
                        block.append(episode)
            except Exception as error:
                number, env_seed, step = self.place.tolist()
                lost.append(Lost(number, env_seed, step, f"{type(error).__name__}: {error}"))
        return block, lost

    def _succeeded(self, episode: RecordedEpisode) -> bool:
        """Whether the episode just played got to the goal, or, where the simulator decides, says so at its end."""
        if self._env.card.reward.rule != "env":
            return bool(episode.terminations[-1])
        return bool(self._success)

    def episode(self, index: int) -> RecordedEpisode:
        """One episode, whole or, in a recipe of pieces, cut where it would span too much."""
        rng = np.random.default_rng([self._seed, index])
        env_seed = int(rng.integers(2**31))
        self.place[:] = index, env_seed, 0
        maze = self._env.maze
        cells = [] if maze is None else self._recipe.draw_cells(maze, rng)
        seen, actions, rewards, terminated = self._play(index, rng, env_seed, cells)
        length = len(rewards)
        observations = {key: np.array([observation[key] for observation in seen]) for key in seen[0]}
        if maze is not None and self._recipe.routes == "stitch":
            length = within_span(maze, observations["achieved_goal"], self._recipe.max_cells)
        reached = terminated and length == len(rewards)
        last = np.arange(length) == length - 1
        return RecordedEpisode(
            seed=env_seed,
            observations={key: rows[: length + 1] for key, rows in observations.items()},
            actions=actions[:length],
            rewards=np.array(rewards[:length], np.float64),
            terminations=last & reached,
            truncations=last & (not reached),
        )

    def _play(
        self, index: int, rng: np.random.Generator, env_seed: int, cells: list[Cell]
    ) -> tuple[list[Observation], FloatArray, list[float], bool]:
        """Observations (T + 1), actions (at least T, A), rewards (T) and whether the goal was reached."""
        env, which = self._env, self._recipe.part_of(index)
        limit, acting = env.card.max_episode_steps, env.actions
        options = {"start_cell": cells[0], "goal_cell": cells[-1]} if cells else None
        observation, _ = env.reset(seed=env_seed, options=options)
        controller, aims = self._controllers[which], self._aims(rng, cells[1:-1])
        controller.reset(rng, observation | aims[0], limit)
        noise = self._recipe.parts[which].noise
        scale, shift = (rows.tolist() for rows in noise.draw(rng, limit, acting.control_dim))
        waiting = deque([(0.0,) * acting.control_dim] * noise.late(rng))
        actions = np.zeros((limit, acting.dim), np.float32)
        there, given_up = env.card.reached, 1.0 / self._recipe.via_steps
        seen, rewards, place = [observation], list[float](), self.place
        for step, (action, share, offset) in enumerate(zip(actions, scale, shift, strict=True)):
            place[2] = step
            if aims[0] and (there(observation["achieved_goal"], aims[0]["desired_goal"]) or rng.random() < given_up):
                aims = aims[1:]
                controller.reset(rng, observation | aims[0], limit)
            waiting.append(control := controller.act(observation))
            if len(control) != acting.control_dim:
                raise ToolkitError(f"a controller answers with {acting.control_dim} numbers here, not {len(control)}")
            wanted = zip(waiting.popleft(), offset, strict=True)
            action[:] = acting.nearest([min(max(share[0] * number + extra, -1.0), 1.0) for number, extra in wanted])
            observation, reward, terminated, truncated, info = env.step(action)
            self._success = info["is_success"]
            seen.append(observation)
            rewards.append(reward)
            if terminated or truncated:
                break
        if not np.isfinite(actions).all():
            raise ToolkitError("its controller answered with NaN or infinity")
        return seen, actions, rewards, terminated

    def _aims(self, rng: np.random.Generator, via: list[Cell]) -> list[Observation]:
        """What a controller is told in place of the goal, one after the other: places on the way, then nothing."""
        if not via or self._env.maze is None:
            return [{}]
        off = self._env.maze.scale / 4  # anywhere in the middle of each cell
        places = self._env.maze.cell_to_xy(via) + rng.uniform(-off, off, (len(via), 2))
        return [*({"desired_goal": place} for place in places), {}]


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

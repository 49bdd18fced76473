"""The task card: what to simulate, where an episode starts, what counts as success and what it pays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from toolkit.catalog import find
from toolkit.config import Problem, Strict, load_model
from toolkit.maze import Cell, Maze
from toolkit.strict_yaml import Keys
from toolkit.tasks.mazes import ROBOTS, family, is_maze, is_ogbench, maze_of
from toolkit.tasks.physics import Physics
from toolkit.tasks.registry import registry_spec
from toolkit.types import BoolArray, Episodes, FloatArray, IntArray, Json, ToolkitError

_CELLS = (1, 0, "r", "g", "c")
"""What a map holds: wall, floor, and floor that gymnasium-robotics may begin or end an episode on."""


class Goal(Strict):
    """Where the task ends: success is a distance to the goal of at most `radius`.

    A task with neither `cell` nor `observed` has no goal. Outside of mazes the simulator draws the goals.
    """

    cell: Cell | None = None
    """Maze cell (row, col) whose centre is the goal; null draws one for each episode."""
    observed: bool = False
    """Whether the policy sees the goal."""
    radius: float = Field(0.45, gt=0)
    """In the units of the simulator's goals: metres."""
    noise: float = Field(0.25, ge=0)
    """Metres a drawn goal may lie off its cell's centre, along each axis; for mazes."""


class Start(Strict):
    """Where an episode begins; for mazes."""

    cells: Literal["any"] | tuple[Cell, ...] = "any"
    """Maze cells (row, col) to draw from; the goal's own is always left out."""
    noise: float = Field(0.25, ge=0)
    """Metres a start may lie off its cell's centre, along each axis."""


class Reward(Strict):
    """What a step pays and what ends an episode.

    `sparse`: `success` on the step that reaches the goal, `step` on every other. `dense`: exp(-distance to the goal)
    on top of that; with `step` and `success` 0 it is gymnasium-robotics' dense reward, under which it pays to wait
    beside the goal, since arriving ends the episode. `env`: the simulator's own reward, end and word on success.
    """

    rule: Literal["sparse", "dense", "env"] = "sparse"
    """`sparse`, `dense` (that and exp(-distance to the goal)), or `env`, the simulator's own reward and end."""
    step: float = -1.0
    """What every step pays that does not reach the goal; for sparse and dense."""
    success: float = 0.0
    """What the step pays that reaches it."""


class TaskCard(Strict):
    """A task, as a file in `envs/` describes it."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Lower-case words joined by -."""
    description: str
    """What it shows, in a line."""
    env_id: str = Field(pattern=r"^([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]+-v[0-9]+$")
    """A registered environment of gymnasium, gymnasium-robotics or an installed package (docs/your-robot.md), or one of
    OGBench's mazes of a point or an ant."""
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor."""
    directions: int | None = Field(None, ge=3, le=64)
    """In PointMaze, discrete actions: to stand still or a full push in one of so many directions, evenly spread, the
    first one east, then counter-clockwise; null takes any push."""
    max_episode_steps: int = Field(gt=0, le=1_000_000)
    """Steps after which an episode is truncated."""
    goal: Goal = Goal()
    start: Start = Start()
    tasks: tuple[tuple[Cell, Cell], ...] = ()
    """In a maze, pairs of a start's and a goal's cell (row, col): each episode is one of them, in an evaluation each of
    them equally often, and its success is counted for each; in place of goal.cell and start.cells."""
    reward: Reward = Reward()
    physics: Physics = Physics()

    @model_validator(mode="after")
    def _fits_together(self) -> TaskCard:
        own = self.reward.rule == "env"
        if not self.in_maze:
            if self.goal.cell is not None or self.start != Start() or self.directions is not None or self.tasks:
                raise ValueError("goal.cell, start, directions and tasks are for mazes; expected none here")
            if not own and not self.goal.observed:
                raise ValueError(
                    f"reward.rule {self.reward.rule} needs a goal: expected goal.observed: true, or rule: env"
                )
            return self
        if self.goal.cell is None and not self.goal.observed:
            raise ValueError(
                "expected goal.cell or goal.observed: true; a policy that cannot see its goal needs a fixed one"
            )
        if own:
            raise ValueError("reward.rule: expected sparse or dense; in a maze the card draws the goals, so it pays")
        if is_ogbench(self.env_id) and self.env_kwargs:
            raise ValueError(f"env_kwargs: expected none for {self.env_id}, whose maze is as OGBench makes it")
        self._check_tasks()
        robot = family(self.env_id)
        if self.directions is not None and robot != "PointMaze":
            raise ValueError(f"directions: expected null; pushes move the ball of PointMaze, not {robot}'s robot")
        room = ROBOTS[robot].room
        for where, noise in (("start", self.start.noise), ("goal", self.goal.noise)):
            if noise > room:
                raise ValueError(f"{where}.noise: expected at most {room} m, which is clear of the walls; got {noise}")
        return self

    def _check_tasks(self) -> None:
        if not self.tasks:
            return
        if self.goal.cell is not None or self.start.cells != "any":
            raise ValueError("tasks: say where episodes begin and end; expected goal.cell: null and start.cells: any")
        if len(set(self.tasks)) < len(self.tasks) or any(start == goal for start, goal in self.tasks):
            raise ValueError("tasks: expected each pair once, and in a pair two different cells")

    @property
    def in_maze(self) -> bool:
        """Whether the task is played in a maze."""
        return is_maze(self.env_id)

    @property
    def maze(self) -> Maze:
        """Geometry of the task's maze. Raises ToolkitError where it has none."""
        if not self.in_maze:
            raise ToolkitError(f"task {self.name} is played in no maze; expected one that is, such as pointmaze-medium")
        return maze_of(self.env_id, self.env_kwargs.get("maze_map"))

    @property
    def goal_xy(self) -> npt.NDArray[np.float64] | None:
        """The fixed goal in metres, (2,), or None where each episode has its own or the task has none."""
        return None if self.goal.cell is None else self.maze.cell_to_xy(self.goal.cell)

    @property
    def start_cells(self) -> list[Cell]:
        """Cells an episode may start in; the goal's is left out when an episode is drawn."""
        return self.maze.free_cells if self.start.cells == "any" else list(self.start.cells)

    def reached(self, achieved: npt.ArrayLike, desired: npt.ArrayLike) -> BoolArray:
        """Whether each achieved goal (..., G) is within the radius of the desired one; (...).

        Computed in float32 whatever comes in, so that the simulator and the stored data never disagree.
        """
        inside: BoolArray = _squared_distance(achieved, desired) <= np.float32(self.goal.radius) ** 2
        return inside

    def task_of(self, start_xy: npt.ArrayLike, goal_xy: npt.ArrayLike) -> IntArray:
        """Which task leads from each start (..., 2) to each goal (..., 2), in metres; (...), -1 where none does."""
        found = np.full(np.shape(start_xy)[:-1], -1)
        for number, (start, goal) in enumerate(self.tasks):
            same = [self.maze.xy_to_cell(xy) == cell for xy, cell in ((start_xy, start), (goal_xy, goal))]
            found[np.logical_and(*same).all(-1)] = number
        return found

    def pay(self, achieved: npt.ArrayLike, desired: npt.ArrayLike) -> FloatArray:
        """Reward of a step that ends at each achieved goal (..., G), by rule sparse or dense; (...)."""
        reward = np.where(self.reached(achieved, desired), self.reward.success, self.reward.step).astype(np.float32)
        if self.reward.rule == "dense":
            reward = reward + np.exp(-np.sqrt(_squared_distance(achieved, desired)))
        return reward

    def return_range(self, gamma: float) -> tuple[float, float] | None:
        """Lowest and highest discounted return that the rewards allow; None where the simulator pays."""
        reward = self.reward
        if reward.rule == "env":
            return None
        steps = 1.0 / (1.0 - gamma) if gamma < 1.0 else float(self.max_episode_steps)
        bonus = 1.0 if reward.rule == "dense" else 0.0  # exp(-distance) at most
        least, most = reward.step, reward.step + bonus
        return min(least * steps, least, reward.success), max(most * steps, most, reward.success + bonus)

    def cut_value(self, gamma: float) -> float:
        """What a Monte Carlo return counts after a time limit: the worst that can follow; 0 where that is not known."""
        found = self.return_range(gamma)
        return found[0] if found else 0.0

    def policy_input(self, observation: dict[str, npt.NDArray[Any]]) -> FloatArray:
        """What the policy sees of a Dict observation, (..., O): the state, then the goal where it is observed."""
        return self._join(observation["observation"], observation.get("desired_goal"))

    def inputs(self, episodes: Episodes) -> FloatArray:
        """Policy inputs of every stored row, (R, O)."""
        return self._join(episodes.obs, episodes.desired)

    def _join(self, state: npt.NDArray[Any], goal: npt.NDArray[Any] | None) -> FloatArray:
        if not self.goal.observed or goal is None:
            return state.astype(np.float32)
        return np.concatenate([state, goal], axis=-1, dtype=np.float32, casting="same_kind")


def _squared_distance(achieved: npt.ArrayLike, desired: npt.ArrayLike) -> FloatArray:
    offset = np.asarray(achieved, np.float32) - np.asarray(desired, np.float32)
    squared: FloatArray = (offset * offset).sum(axis=-1)
    return squared


def load_card(name_or_path: str | Path) -> TaskCard:
    """Read and check a task card by catalogue name or path. Raises ToolkitError with all that is to be mended."""
    return load_model(find("envs", str(name_or_path)), TaskCard, check=_simulated)


def _simulated(raw: Json) -> Iterator[Problem]:
    """An unknown environment, or every cell that is not free in its maze; what one field can tell is not repeated."""
    try:
        card = TaskCard.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError:
        return
    try:
        registry_spec(card.env_id)
    except ToolkitError as error:
        yield Problem(("env_id",), str(error))
        return
    if card.in_maze and (faults := list(_map_faults(card.env_kwargs))):
        yield from faults
        return
    free = card.maze.free_cells if card.in_maze else []
    named: list[tuple[Keys, Cell]] = [] if card.goal.cell is None else [(("goal", "cell"), card.goal.cell)]
    if card.start.cells != "any":
        named += [(("start", "cells", index), cell) for index, cell in enumerate(card.start.cells)]
    for number, pair in enumerate(card.tasks):
        named += [(("tasks", number, place), cell) for place, cell in enumerate(pair)]
    for keys, cell in named:
        if cell not in free:
            yield Problem(keys, f"expected one of the free cells {[list(c) for c in free]}; got {list(cell)}")


def _map_faults(arguments: Json) -> Iterator[Problem]:
    """Whatever keeps a map of one's own from being a maze."""
    rows, keys = arguments.get("maze_map", [[0]]), ("env_kwargs", "maze_map")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        yield Problem(keys, f"expected rows in a list, each a list of 1 (wall) and 0 (floor); got {rows!r:.80}")
        return
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            yield Problem((*keys, number), f"expected {len(rows[0])} cells, as the first row has; got {len(row)}")
        for place, entry in enumerate(row):
            if type(entry) not in (int, str) or entry not in _CELLS:
                yield Problem((*keys, number, place), f"expected one of {list(_CELLS)}; got {entry!r:.80}")

"""The dataset recipe: who drives, with what noise, from where to where."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from toolkit.catalog import find
from toolkit.config import Strict, load_model
from toolkit.controllers.ant import AntController
from toolkit.controllers.fetch import fetch_controller
from toolkit.controllers.noise import Noise, NoNoise
from toolkit.controllers.scripted import Controller, RandomController, WaypointController
from toolkit.files import source_file
from toolkit.maze import Cell, Maze
from toolkit.types import ToolkitError

_GROUP = "toolkit.controllers"  # of entry points that name controllers
_GOLDEN = (5**0.5 - 1) / 2


class Waypoint(Strict):
    """Follow the shortest string of cells to the episode's goal."""

    kind: Literal["waypoint"]
    stiffness: float = Field(10.0, gt=0)
    """Action for each cell of distance to the next waypoint."""
    damping: float = Field(1.5, ge=0)
    """Action against each cell a second of speed."""

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """The controller for one maze."""
        if maze is None:
            raise ToolkitError("controller waypoint: finds its way in a maze, and this task has none; expected random")
        if control_dim != 2:
            raise ToolkitError(f"controller waypoint: drives a ball or point; expected ant or random for {env_id}")
        return WaypointController(maze, self.stiffness, self.damping)


class Random(Strict):
    """Wander with smoothly drifting actions, whatever the goal."""

    kind: Literal["random"]
    std: float = Field(0.7, gt=0, le=10)
    """Spread of each number of an action, which is in [-1, 1]."""
    steps: float = Field(30.0, ge=1)
    """Steps after which a direction is forgotten."""

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """The controller for any task."""
        return RandomController(self.std, self.steps, control_dim)


class Fetch(Strict):
    """Do the task of a Fetch arm: reach, push, slide, or pick and place, whichever it is."""

    kind: Literal["fetch"]

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """The controller for one of the arm's tasks."""
        return fetch_controller(env_id)


class Kitchen(Strict):
    """Do tasks in the Franka arm's kitchen, one after the other."""

    kind: Literal["kitchen"]
    tasks: tuple[Literal["microwave", "light switch", "slide cabinet"], ...] = Field(
        ("microwave", "light switch", "slide cabinet"), min_length=1
    )
    """Which, in this order; as the environment names them."""

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """The controller for the kitchen."""
        from toolkit.controllers.kitchen import KitchenController

        return KitchenController(env_id, self.tasks)


class Ant(Strict):
    """Walk an ant along the shortest string of cells to the episode's goal."""

    kind: Literal["ant"]

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """The controller for one maze."""
        if maze is None or not env_id.startswith(("AntMaze_", "antmaze-")):
            raise ToolkitError(f"controller ant: expected an ant's task in a maze, got {env_id}")
        return AntController(maze)


class Sb3(Strict):
    """Act as a policy that Stable-Baselines3 saved (`model.save(path)`); code in the file is not run."""

    kind: Literal["sb3"]
    path: str
    """The .zip file."""
    stochastic: bool = False
    """Whether it draws its actions as it did while it learned; else it takes the best."""

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """The controller for a task with the observations and actions it was trained for."""
        from toolkit.controllers.sb3 import Sb3Controller

        return Sb3Controller(Path(self.path), control_dim, self.stochastic)

    @property
    def files(self) -> list[Path]:
        """What it is made from."""
        return [Path(self.path)]


class Installed(Strict):
    """A controller of yours, out of an installed package that names it as an entry point of toolkit.controllers."""

    kind: Literal["installed"]
    name: str
    """Of the entry point. It is called with env_id, maze (None outside of mazes) and control_dim, and the arguments."""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """What else it is called with."""

    def make(self, env_id: str, maze: Maze | None, control_dim: int) -> Controller:
        """Whatever the entry point returns, which has to have `reset` and `act`."""
        found = entry_points(group=_GROUP)
        if self.name not in found.names:
            known = ", ".join(sorted(found.names)) or "none"
            raise ToolkitError(
                f"controller installed: no package names {self.name!r} as an entry point of {_GROUP}; "
                f"installed: {known}"
            )
        try:
            controller = found[self.name].load()(env_id=env_id, maze=maze, control_dim=control_dim, **self.arguments)
        except (ImportError, AttributeError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ToolkitError(f"controller installed: {self.name} cannot be made: {why}") from error
        if missing := [name for name in ("reset", "act") if not callable(getattr(controller, name, None))]:
            raise ToolkitError(f"controller installed: {self.name}: expected a method {missing[0]}")
        made: Controller = controller
        return made

    @property
    def files(self) -> list[Path]:
        """The module that the entry point names, where it can be found."""
        found = [source_file(point.module) for point in entry_points(group=_GROUP, name=self.name)]
        return [path for path in found if path is not None]


Driver = Annotated[Waypoint | Random | Ant | Fetch | Kitchen | Sb3 | Installed, Field(discriminator="kind")]


class Part(Strict):
    """A share of a recipe's episodes."""

    weight: float = Field(1.0, gt=0)
    """Share of the episodes, relative to the other parts'."""
    controller: Driver
    """Who acts."""
    noise: Noise = NoNoise(kind="none")
    """What is added to its actions."""


class Recipe(Strict):
    """A data set to collect, as a file in `datasets/` describes it."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Lower-case words joined by -."""
    description: str
    """What it shows, in a line."""
    task: str
    """Name of the task card to collect for; a pipeline's own task takes its place."""
    episodes: int = Field(gt=0, le=10_000_000)
    """Episodes to record."""
    max_episode_steps: int = Field(gt=0, le=1_000_000)
    """Steps after which a recording stops; independent of the task's own limit."""
    routes: Literal["task", "navigate", "stitch"]
    """From where to where. `task`: start and goal as the task draws them. `navigate`: whole routes, from any cell to
    any cell at least `min_cells` away. `stitch`: pieces, from any cell to any cell at most `max_cells` away, cut where
    they would span more, so that no episode joins places farther apart than that."""
    min_cells: int = Field(5, ge=1)
    """Shortest route of `navigate`, in cells; where no cell is that far the farthest are taken."""
    max_cells: int = Field(4, ge=1)
    """Longest piece of `stitch`, in cells."""
    via: int = Field(0, ge=0, le=100)
    """Places aimed at before the goal, one after the other, in `navigate` and `stitch`: recordings that show turns."""
    via_steps: float = Field(40.0, ge=1)
    """Steps after which a place on the way is given up for the next, on average, if it is not reached sooner."""
    keep: Literal["all", "success"] = "all"
    """Which of the episodes played are recorded."""
    controller: Driver | None = None
    """Who acts; null where there is a `mixture`."""
    noise: Noise = NoNoise(kind="none")
    """What is added to the actions."""
    mixture: tuple[Part, ...] = ()
    """Parts in place of `controller` and `noise`; their episodes are spread evenly over the data set."""

    @model_validator(mode="after")
    def _one_way_to_drive(self) -> Recipe:
        if (self.controller is None) == (not self.mixture):
            raise ValueError("expected either controller (and noise) or mixture, not both and not neither")
        if self.mixture and self.noise.kind != "none":
            raise ValueError("expected noise inside each part of mixture, where there is a mixture")
        return self

    @property
    def parts(self) -> tuple[Part, ...]:
        """The mixture, or the one part the recipe is."""
        if self.controller is None:
            return self.mixture
        return (Part(controller=self.controller, noise=self.noise),)

    @property
    def models(self) -> tuple[Path, ...]:
        """Files that controllers are made from: what SB3 saved, and the source of those that packages bring."""
        made = [part.controller for part in self.parts if isinstance(part.controller, Sb3 | Installed)]
        return tuple(path for controller in made for path in controller.files)

    def part_of(self, episode: int) -> int:
        """Index of the part that records an episode; each part's share is spread evenly over the data set."""
        bounds = np.cumsum([part.weight for part in self.parts])
        spread = episode * _GOLDEN % 1.0  # never clusters, whatever the number of episodes
        return int(np.searchsorted(bounds[:-1], spread * bounds[-1], side="right"))

    def controllers(self, env_id: str, maze: Maze | None, control_dim: int) -> list[Controller]:
        """One for each part, giving `control_dim` numbers. Raises ToolkitError for a part that is for other tasks."""
        if maze is None and self.routes != "task":
            raise ToolkitError(
                f"recipe {self.name}: routes: {self.routes} needs a maze, and this task has none; expected a recipe "
                f"with routes: task, such as random or arm"
            )
        return [part.controller.make(env_id, maze, control_dim) for part in self.parts]

    def draw_cells(self, maze: Maze, rng: np.random.Generator) -> list[Cell]:
        """Start, places on the way and goal of one episode; nothing where the task draws start and goal.

        All lie in one part of the maze, which may have several; a cell without neighbours is no start.
        """
        if self.routes == "task":
            return []
        starts = [cell for cell in maze.free_cells if maze.neighbours(cell)]
        if not starts:
            raise ToolkitError(f"recipe {self.name}: expected a maze with cells of floor side by side, to walk between")
        start = starts[rng.integers(len(starts))]
        distance = maze.distances_to(start)
        away = {cell: distance[cell] for cell in maze.free_cells if distance[cell] > 0}
        if self.routes == "stitch":
            choices = [cell for cell, steps in away.items() if steps <= self.max_cells]
        else:
            least = min(self.min_cells, max(away.values()))
            choices = [cell for cell, steps in away.items() if steps >= least]
        return [start, *(choices[rng.integers(len(choices))] for _ in range(self.via + 1))]


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read and check a recipe by catalogue name or path. Raises ToolkitError with all that is to be mended."""
    return load_model(find("datasets", str(name_or_path)), Recipe)

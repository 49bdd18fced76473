"""What every stage of a run shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.collect import dataset_id
from toolkit.console import Console
from toolkit.controllers import Recipe
from toolkit.pipeline.folder import RunFolder
from toolkit.pipeline.interrupt import Interrupt
from toolkit.pipeline.spec import PipelineSpec
from toolkit.tasks import TaskCard
from toolkit.types import Json


@dataclass(frozen=True)
class Plan:
    """A pipeline with everything its names stand for, checked; `keys` says what each stage's result follows from."""

    spec: PipelineSpec
    card: TaskCard
    recipes: dict[str, Recipe]  # by collect stage
    resolved: Json  # the specification with all defaults, the agents' too
    keys: dict[str, str]
    inputs: dict[str, tuple[str, ...]]

    def dataset(self, root: Path, name: str) -> Path:
        """Where a stage leaves its recording below the run's data root."""
        if name in self.recipes:
            return root / dataset_id(self.recipes[name], self.card)
        return root / f"{self.spec.stages[name].kind}ed/{name}-v0"  # imported or recorded


@dataclass(frozen=True)
class Context:
    """A plan being carried out."""

    plan: Plan
    folder: RunFolder
    console: Console
    interrupt: Interrupt

    @property
    def seeds(self) -> list[int]:
        """Seeds trained together."""
        return list(self.plan.spec.seeds)

    def checkpoint(self, name: str) -> Path:
        """Checkpoint folder of a stage."""
        return self.folder.stage(name) / "checkpoint"

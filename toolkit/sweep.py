"""What `toolkit sweep` does: a policy under changed physics, as a grid of one or two factors (level 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from toolkit import config
from toolkit.assess import Starts, start_cells
from toolkit.console import judged_by, number
from toolkit.evaluate import evaluate, part_of
from toolkit.policy import find_checkpoint, load_policy
from toolkit.processes import cores
from toolkit.tasks import Physics, unseen_env
from toolkit.types import Json, Progress, ToolkitError


def sweep_run(
    run_or_checkpoint: str | Path,
    factors: Mapping[str, Sequence[float]],
    episodes: int = 50,
    starts: Starts | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Json:
    """Evaluate every seed of a run or checkpoint in every cell of a grid; the same numbers whatever `workers` is.

    `factors` has one or two names of `Physics` and the values that stand in place of the task card's own. The same
    episodes are played in every cell. `cells` in the result are in the order of the grid, the last factor fastest.
    Raises ToolkitError for a value that cannot be, or that would change nothing in this simulator.
    """
    policy = load_policy(run_or_checkpoint)
    if not 1 <= len(factors) <= 2:
        raise ToolkitError(f"a grid has one or two of {', '.join(Physics.model_fields)}; got {len(factors)}")
    starts, cells = start_cells(policy, starts, run_or_checkpoint)
    grid = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    cards = [policy.card.model_copy(update={"physics": _physics(policy.card.physics, cell)}) for cell in grid]
    for card in cards:  # a factor without effect is refused before any cell is played
        unseen_env(card).close()
    found: list[Json] = []
    for cell, card in zip(grid, cards, strict=True):
        result = evaluate(
            policy.act,
            card,
            seeds=len(policy.seeds),
            episodes=episodes,
            starts=cells,
            workers=workers or cores(),
            progress=part_of(progress, len(found), len(grid)),
        )
        summary = result.summary()
        found.append({**cell, "success": summary["success"], "return": summary["return"]})
    return {
        "checkpoint": str(find_checkpoint(run_or_checkpoint)),
        "agent": policy.agent_name,
        "task": policy.card.name,
        "seeds": policy.seeds,
        "starts": starts,
        "episodes": episodes,
        "factors": {name: list(values) for name, values in factors.items()},
        "usual": {name: getattr(policy.card.physics, name) for name in factors},
        "cells": found,
    }


def _physics(usual: Physics, cell: Mapping[str, float]) -> Physics:
    whole = {name: int(value) if float(value).is_integer() else value for name, value in cell.items()}
    made, problems = config.validate(Physics, {**config.dump(usual), **whole})
    if made is None:
        raise ToolkitError("; ".join(f"--{keys[0]}: {text}" for keys, text in problems))
    return made


def table(result: Json) -> list[str]:
    """The grid in lines for a terminal: rows are the first factor, columns the second."""
    names, measure = list(result["factors"]), judged_by(result["cells"][0])
    columns = result["factors"][names[1]] if len(names) > 1 else [None]
    scores = [(cell[measure]["iqm"], *cell[measure]["ci95"]) for cell in result["cells"]]
    texts = [f"{number(middle)} ({number(low)} to {number(high)})" for middle, low, high in scores]
    head = [f"{names[1]} {value:g}" for value in columns if value is not None] or [measure]
    width = max(map(len, [*texts, *head])) + 2
    lines = [f"{measure}, {result['episodes']} episodes a seed from {result['starts']} starts"]
    lines.append(" " * 16 + "".join(f"{text:<{width}}" for text in head))
    for place, value in enumerate(result["factors"][names[0]]):
        row = texts[place * len(columns) : (place + 1) * len(columns)]
        lines.append(f"{names[0]} {value:g}".ljust(16) + "".join(f"{text:<{width}}" for text in row))
    return [line.rstrip() for line in lines]

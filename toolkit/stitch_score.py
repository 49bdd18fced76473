"""Success against the stitches an episode needs, with a tabular oracle as the ceiling (level 3).

Episodes are grouped by how many recorded trajectories must be joined to get from their start to their goal. What a
policy reaches where one trajectory leads all the way it may have by imitation; what it reaches beyond has been joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.evaluate import Act, EvalResult, evaluate
from toolkit.maze import Cell
from toolkit.oracle import Oracle
from toolkit.stats import Numbers, seed_ci, success_summary, value_summary
from toolkit.stitching import Stitches, coverage
from toolkit.tasks import TaskCard
from toolkit.types import Episodes, IntArray, Json, Progress, ToolkitError

MOST_PAIRS = 200  # of a group that are played
EPISODES_SEED = 2  # the episodes are others than those of the other evaluations


@dataclass(frozen=True)
class Group:
    """Starts, each with its goal, that need the same number of stitches."""

    stitches: int
    starts: tuple[Cell, ...]
    goals: tuple[Cell, ...] | None  # None where the task has one goal
    pairs: int  # in all; those above are a choice


class Ladder:
    """The groups of one data set under one task, 0 stitches first, and the oracle that plays them."""

    def __init__(self, card: TaskCard, episodes: Episodes) -> None:
        self.card, self.episodes = card, episodes
        self.stitches = Stitches(episodes, card.maze)
        goal = card.maze.cell_to_xy(card.maze.free_cells[0]) if card.goal_xy is None else card.goal_xy
        self.oracle = Oracle(card, coverage(episodes, card.maze, goal, card.goal.radius).edges)
        pairs = stitches_needed(card, self.stitches)
        self.beyond = sum(left < 0 for left, _, _ in pairs)  # that the data does not join at all
        self.groups = [
            self._group(count, [(start, goal) for left, start, goal in pairs if left == count])
            for count in sorted({left for left, _, _ in pairs if left >= 0})
        ]
        if not self.groups:
            raise ToolkitError(f"task {card.name}: the data leads from none of the task's starts to its goal")

    def _group(self, count: int, pairs: list[tuple[Cell, Cell]]) -> Group:
        random = np.random.Generator(np.random.Philox(key=count))
        kept = np.sort(random.permutation(len(pairs))[:MOST_PAIRS])
        starts = tuple(pairs[place][0] for place in kept)
        goals = tuple(pairs[place][1] for place in kept) if self.card.goal_xy is None else None
        return Group(count, starts, goals, len(pairs))

    def example(self) -> Json:
        """A route with the most stitches and the pieces it is made of, for a picture: (T, 2) positions each."""
        group = self.groups[-1]
        maze, start = self.card.maze, group.starts[0]
        if group.goals is None:
            goal_xy = np.asarray(self.card.goal_xy)
            route = self.stitches.pieces(start, near=(goal_xy, self.card.goal.radius))
        else:
            goal_xy = maze.cell_to_xy(group.goals[0])
            route = self.stitches.pieces(start, group.goals[0])
        lines = [self.episodes.achieved[piece.first : piece.last + 1] for piece in route]
        pieces = [
            {"episode": piece.episode, "xy": [[round(float(x), 3), round(float(y), 3)] for x, y in line]}
            for piece, line in zip(route, lines, strict=True)
        ]
        layout = {**maze.layout(), "radius": self.card.goal.radius}
        return {**layout, "goal": goal_xy.tolist(), "start": list(start), "stitches": group.stitches, "pieces": pieces}


def stitches_needed(card: TaskCard, stitches: Stitches) -> list[tuple[int, Cell, Cell]]:
    """Stitches, start and goal of all that the task may draw; -1 where the data has no route."""
    if card.goal.cell is not None and card.goal_xy is not None:
        left = stitches.to_point(card.goal_xy, card.goal.radius)
        return [(int(left[start]), start, card.goal.cell) for start in card.start_cells if start != card.goal.cell]
    free = card.maze.free_cells
    drawn = [(start, goal) for start in card.start_cells for goal in free if start != goal]
    return [(int(stitches.table[start + goal]), start, goal) for start, goal in card.tasks or drawn]


def plays(ladder: Ladder, policies: Mapping[str, Act], seeds: int, episodes: int) -> int:
    """How many episodes `measure` plays."""
    return (1 + len(policies)) * len(ladder.groups) * seeds * episodes


def measure(
    ladder: Ladder,
    policies: Mapping[str, Act],
    seeds: int,
    episodes: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> Json:
    """Play `episodes` episodes of each of S seeds in every group with every policy and with the oracle.

    A policy maps inputs (S, N, O) to actions (S, N, A). The same episodes are played by all, so lengths are compared
    episode by episode.
    """
    done, total = 0, plays(ladder, policies, seeds, episodes)

    def play(act: Act, group: Group) -> EvalResult:
        nonlocal done
        result = evaluate(
            act,
            ladder.card,
            seeds,
            episodes,
            starts=group.starts,
            goals=group.goals,
            workers=workers,
            base_seed=EPISODES_SEED,
        )
        done += seeds * episodes
        if progress is not None:
            progress(done, total)
        return result

    ceiling = [play(ladder.oracle, group) for group in ladder.groups]
    top = np.array([result.success.mean() for result in ceiling])
    counts = np.array([group.stitches for group in ladder.groups])
    found: Json = {
        "task": ladder.card.name,
        "episodes": episodes,
        "groups": [{"stitches": group.stitches, "pairs": group.pairs} for group in ladder.groups],
        "beyond": ladder.beyond,
        "oracle": {"curve": [_point(group, result) for group, result in zip(ladder.groups, ceiling, strict=True)]},
        "policies": {},
        "example": ladder.example(),
    }
    for name, act in policies.items():
        results = [play(act, group) for group in ladder.groups]
        curve = [
            _point(group, result) | {"length_over_oracle": value_summary(_longer(result, best))}
            for group, result, best in zip(ladder.groups, results, ceiling, strict=True)
        ]
        rates = np.array([result.success.mean(1) for result in results])  # (K, S)
        found["policies"][name] = {"curve": curve, "score": stitching_score(counts, rates, top)}
    return found


def stitching_score(stitches: IntArray, success: Numbers, oracle: Numbers) -> Json | None:
    """Area under success against stitches from one stitch on, as a share of the oracle's.

    `stitches` (K,) counts, `success` (K, S) rates of each seed, `oracle` (K,) rates. Every count weighs the same. The
    summary of `value_summary` over the seeds; None where nothing needs a stitch or the oracle reaches nothing.
    """
    joined = stitches > 0
    area = float(oracle[joined].sum())
    if not joined.any() or area == 0.0:
        return None
    per_seed = success[joined].sum(0) / area
    low, high = seed_ci(per_seed)
    known = not np.isnan(low)
    return {
        "iqm": value_summary(per_seed[:, None])["iqm"],
        "ci95": [max(low, 0.0), min(high, joined.sum() / area)] if known else [None, None],
        "per_seed": per_seed.tolist(),
    }


def _point(group: Group, result: EvalResult) -> Json:
    return {"stitches": group.stitches, "success": success_summary(result.success)}


def _longer(result: EvalResult, best: EvalResult) -> Numbers:
    """Way travelled over the oracle's in the same episode, (S, n); NaN unless both arrive."""
    fair = (result.success == 1.0) & (best.success == 1.0) & (best.path_length > 0)
    ratio = np.full(fair.shape, np.nan)
    ratio[fair] = result.path_length[fair] / best.path_length[fair]
    return ratio


def table(found: Json) -> list[str]:
    """The numbers in lines for a terminal: a row for each number of stitches, a column for each policy."""
    entries = {"oracle": found["oracle"], **found["policies"]}
    lines = [f"{found['task']}: {found['episodes']} episodes a seed and row; success (95 % interval) way over oracle's"]
    lines.append(f"{'stitches':>9}{'pairs':>8}" + "".join(f"{name:>28}" for name in entries))
    for row, group in enumerate(found["groups"]):
        cells = (_cell(entry["curve"][row]) for entry in entries.values())
        lines.append(f"{group['stitches']:>9}{group['pairs']:>8}" + "".join(f"{cell:>28}" for cell in cells))
    if found["beyond"]:
        lines.append(f"{'none':>9}{found['beyond']:>8}  no chain of trajectories leads from the start to the goal")
    scores = (_words(entry["score"]) if "score" in entry else "" for entry in entries.values())
    lines.append(f"{'score':>9}{'':>8}" + "".join(f"{score:>28}" for score in scores))
    return lines


def _cell(point: Json) -> str:
    ratio = point.get("length_over_oracle", {}).get("iqm")
    return _words(point["success"]) + ("" if ratio is None else f" x{ratio:.2f}")


def _words(summary: Json | None) -> str:
    if summary is None or summary["iqm"] is None:
        return "-"
    low, high = summary["ci95"]
    return f"{summary['iqm']:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")

"""Play episodes with a policy and count: success, return, steps, and the route against the shortest one (level 3).

An episode depends on the base seed, the index of its seed and its own index, and on nothing else. Episodes are cut
into shares of a fixed size, each share is played on lanes of its own, and a policy call always has the shape
(S, LANES, O): however many processes take the shares, every call has the same numbers at the same place, and so the
results are equal to the last bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from toolkit.maze import Cell
from toolkit.processes import spread
from toolkit.stats import success_summary, value_summary
from toolkit.tasks import Chunks, EnvPool, TaskCard, step_seconds
from toolkit.types import Failed, FloatArray, IntArray, Json, Progress, ToolkitError

Act: TypeAlias = Callable[[FloatArray], FloatArray]  # (S, N, O) -> (S, N, A) in [-1, 1], or chunks of h: (S, N, h A)

LANES = 16  # episodes a seed plays at once
SHARE = 25  # episodes a seed plays in one share of the work
WORTH = 10.0  # seconds of playing that repay the start of a process


class Route(NamedTuple):
    """One episode of T steps, as recorded."""

    seed: int  # what its reset followed from
    xy: FloatArray  # (T + 1, G) positions
    inputs: FloatArray  # (T + 1, O) what the policy saw
    action: FloatArray  # (T, A)
    reward: FloatArray  # (T,)


@dataclass(frozen=True)
class EvalResult:
    """Outcomes of n episodes of each of S seeds; arrays are (S, n)."""

    success: npt.NDArray[np.float64]  # 1 or 0; NaN where the task does not say what success is
    ret: npt.NDArray[np.float64]  # sum of rewards
    discounted: npt.NDArray[np.float64]  # the same, each reward times gamma for each step before it
    steps: IntArray
    path_length: npt.NDArray[np.float64]  # travelled by the achieved goal, in a maze metres
    shortest: npt.NDArray[np.float64]  # in a maze from the start to the edge of the goal's radius, around the walls
    start_xy: FloatArray  # (S, n, G)
    goal_xy: FloatArray  # (S, n, G)
    start_inputs: FloatArray  # (S, n, O) what the policy saw first
    path_ratio: npt.NDArray[np.float64]  # travelled over shortest; NaN for failures and starts within a cell's length
    task: IntArray  # which of the card's tasks it was; -1 where it has none
    routes: tuple[tuple[Route, ...], ...] | None = None  # [seed][episode], where asked for

    def summary(self) -> Json:
        """Each number over seeds: interquartile mean, 95 % interval, one value a seed; `stats` says how.

        Where the card has tasks `tasks` holds the success in each that was played, by name: task1 is the card's first.
        """
        tasks = self._by_task()
        return {
            "success": success_summary(self.success),
            "return": value_summary(self.ret),
            "steps_to_goal": value_summary(np.where(self.success == 1.0, self.steps, np.nan)),
            "path_ratio": value_summary(self.path_ratio),
            **({"tasks": tasks} if tasks else {}),
        }

    def _by_task(self) -> Json:
        """Where the last turn through the tasks is unfinished, as many episodes count as every seed has played."""
        found: Json = {}
        for number in np.unique(self.task[self.task >= 0]).tolist():
            own = [row[task == number] for row, task in zip(self.success, self.task, strict=True)]
            if count := min(map(len, own)):
                found[f"task{number + 1}"] = success_summary(np.stack([row[:count] for row in own]))
        return found


@dataclass(frozen=True)
class _Plan:
    """Everything an episode follows from, but for the policy."""

    card: TaskCard
    seeds: int
    episodes: int
    starts: tuple[Cell, ...] | None
    base_seed: int
    record: bool
    first: int
    goals: tuple[Cell, ...] | None
    gamma: float

    def shares(self) -> list[range]:
        return [range(at, min(at + SHARE, self.episodes)) for at in range(self.first, self.episodes, SHARE)]

    def seed(self, seed: int, episode: int) -> int:
        return int(np.random.SeedSequence((self.base_seed, seed, episode)).generate_state(1)[0])

    def options(self, seed: int, episode: int) -> Json | None:
        """Start and goal: every start once in each turn, in an order drawn anew for each turn and seed."""
        if self.starts is None:
            return None
        turn, place = divmod(episode, len(self.starts))
        order = np.random.Generator(np.random.Philox(key=[self.base_seed, (seed << 32) + turn]))
        chosen = order.permutation(len(self.starts))[place]
        goal = {} if self.goals is None else {"goal_cell": self.goals[chosen]}
        return {"start_cell": self.starts[chosen], **goal}


def evaluate(
    act: Act,
    card: TaskCard,
    seeds: int,
    episodes: int,
    starts: Sequence[Cell] | None = None,
    workers: int = 1,
    base_seed: int = 0,
    record_routes: bool = False,
    progress: Progress | None = None,
    first: int = 0,
    goals: Sequence[Cell] | None = None,
    gamma: float = 1.0,
) -> EvalResult:
    """Play `episodes` episodes of each of S seeds with `act`, (S, N, O) -> (S, N, A); of them those from `first` on.

    Of chunks (S, N, h A) it plays h actions before it asks again, from the beginning of each episode on.
    `starts` are the cells to begin in, each equally often, and `goals` the cells each of them leads to; None leaves
    that to the card, of whose tasks each is played equally often. `gamma` is for the discounted returns alone. With
    `workers` above 1 the work is spread over at most so many processes, as far as it repays their start, and `act` must
    survive pickling, as a `Policy` or its `act` does. Raises ToolkitError when the policy returns a number that is not
    finite, or a process dies.
    """
    if min(seeds, episodes - first, workers) < 1 or (starts is not None and not len(starts)):
        raise ToolkitError(
            f"evaluation needs seeds, episodes, workers and start cells; "
            f"got {seeds}, {episodes}, {workers} and {len(starts) if starts is not None else 'any'}"
        )
    if starts is None and card.tasks:
        starts, goals = zip(*card.tasks, strict=True)
    cells = None if starts is None else tuple((int(row), int(col)) for row, col in starts)
    ends = None if goals is None else tuple((int(row), int(col)) for row, col in goals)
    plan = _Plan(card, seeds, episodes, cells, base_seed, record_routes, first, ends, gamma)
    shares = plan.shares()
    count = _Count(plan, progress)
    workers = min(workers, len(shares))
    if workers > 1:
        workers = min(workers, int(seeds * (episodes - first) * card.max_episode_steps * step_seconds(card) / WORTH))
    if workers <= 1:
        with _one_thread():
            return join([_play(act, plan, share, count) for share in shares])
    return join(spread(partial(_play, act, plan), shares, workers, lambda part: count(part.success.size)))


def part_of(progress: Progress | None, place: int, parts: int) -> Progress | None:
    """Progress of one of several pieces of work of the same length, as a part of all."""
    return None if progress is None else lambda done, total: progress(place * total + done, parts * total)


class _Count:
    """Tells `progress` how far the evaluation is."""

    def __init__(self, plan: _Plan, progress: Progress | None) -> None:
        self._done, self._all, self._progress = plan.seeds * plan.first, plan.seeds * plan.episodes, progress

    def __call__(self, episodes: int = 1) -> None:
        self._done += episodes
        if self._progress is not None:
            self._progress(self._done, self._all)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A second thread can change the last bit of a product, and these products are too small to gain from it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=2)
def _pool(card: str, lanes: int) -> EnvPool:
    """Simulators outlive one evaluation: making them takes longer than a short evaluation."""
    return EnvPool(TaskCard.model_validate_json(card), lanes)


class _Table:
    """Outcomes of one share while it is played, (S, n)."""

    def __init__(self, seeds: int, episodes: int, goal: int, inputs: int) -> None:
        shape = (seeds, episodes)
        self.success, self.ret, self.discounted, self.path_length = (np.zeros(shape) for _ in range(4))
        self.steps = np.zeros(shape, np.int64)
        self.start_xy, self.goal_xy = np.zeros((*shape, goal), np.float32), np.zeros((*shape, goal), np.float32)
        self.start_inputs = np.zeros((*shape, inputs), np.float32)
        self.routes: list[list[list[Any]]] = [[[] for _ in range(episodes)] for _ in range(seeds)]


def _play(act: Act, plan: _Plan, share: range, finished: Callable[[], None] = lambda: None) -> EvalResult:
    """Play one share: each lane takes the next episode of its seed as soon as it has finished one."""
    pool = _pool(plan.card.model_dump_json(), plan.seeds * LANES)
    table = _Table(plan.seeds, len(share), pool.achieved.shape[1], pool.inputs.shape[1])
    chunks = Chunks(pool.action_dim)
    waiting = [iter(range(len(share))) for _ in range(plan.seeds)]
    job = np.full(len(pool), -1)  # place in the share of the episode each lane plays; -1 is idle
    owner = np.repeat(np.arange(plan.seeds), LANES)

    def take(lane: int) -> None:
        seed = int(owner[lane])
        job[lane] = place = next(waiting[seed], -1)
        if place < 0:
            pool.inputs[lane] = 0.0
            return
        chance = plan.seed(seed, share[place])
        pool.reset(lane, chance, plan.options(seed, share[place]))
        table.start_xy[seed, place], table.goal_xy[seed, place] = pool.achieved[lane], pool.desired[lane]
        table.start_inputs[seed, place] = pool.inputs[lane]
        if plan.record:
            table.routes[seed][place].append((pool.achieved[lane].copy(), pool.inputs[lane].copy(), chance))

    for lane in range(len(pool)):
        take(lane)
    while (active := job >= 0).any():
        lanes = np.flatnonzero(active)
        at = (owner[lanes], job[lanes])
        actions = chunks.now(pool.steps, partial(_decide, act, pool, plan.seeds, lanes))
        before = pool.achieved[lanes].astype(np.float64)
        pool.step(actions, active)
        table.ret[at] += pool.reward[lanes]
        table.discounted[at] += plan.gamma ** table.steps[at] * pool.reward[lanes]
        table.steps[at] += 1
        table.path_length[at] += np.linalg.norm(pool.achieved[lanes] - before, axis=-1)
        if plan.record:
            _record(table, pool, at, lanes, actions)
        for lane in lanes[pool.terminated[lanes] | pool.truncated[lanes]]:
            table.success[owner[lane], job[lane]] = pool.is_success[lane]
            finished()
            take(int(lane))
    return _result(table, plan)


def _decide(act: Act, pool: EnvPool, seeds: int, lanes: IntArray) -> FloatArray:
    """What the policy decides on in every lane, (N, A) or (N, h A)."""
    actions = np.asarray(act(pool.inputs.reshape(seeds, LANES, -1)), np.float32).reshape(len(pool), -1)
    if not np.isfinite(actions[lanes]).all():
        raise Failed("the policy returned an action that is not finite: training has diverged; lower lr")
    return actions


def _record(table: _Table, pool: EnvPool, at: tuple[IntArray, IntArray], lanes: IntArray, actions: FloatArray) -> None:
    for seed, place, lane in zip(*at, lanes, strict=True):
        row = (pool.achieved[lane].copy(), pool.inputs[lane].copy(), actions[lane].copy(), pool.reward[lane])
        table.routes[seed][place].append(row)


def _result(table: _Table, plan: _Plan) -> EvalResult:
    """Add what follows from the geometry."""
    shortest, ratio = (np.full(table.ret.shape, np.nan) for _ in range(2))
    if plan.card.in_maze:
        maze, radius = plan.card.maze, plan.card.goal.radius
        for index in np.ndindex(shortest.shape):
            whole = maze.shortest_length(table.start_xy[index], table.goal_xy[index])
            shortest[index] = max(0.0, whole - radius)  # the episode ends at the edge of the goal
        fair = (table.success == 1.0) & (shortest >= maze.scale)
        np.divide(table.path_length, shortest, out=ratio, where=fair)
    routes = tuple(tuple(_route(rows) for rows in seed) for seed in table.routes) if plan.record else None
    return EvalResult(
        table.success, table.ret, table.discounted, table.steps, table.path_length, shortest,
        table.start_xy, table.goal_xy, table.start_inputs, ratio,
        plan.card.task_of(table.start_xy, table.goal_xy), routes,
    )  # fmt: skip


def _route(rows: list[Any]) -> Route:
    steps = rows[1:]
    return Route(
        rows[0][2],
        np.stack([row[0] for row in rows]),
        np.stack([row[1] for row in rows]),
        np.stack([row[2] for row in steps]),
        np.array([row[3] for row in steps], np.float32),
    )


def join(parts: Sequence[EvalResult]) -> EvalResult:
    """Episodes of the same seeds side by side."""
    names = [field.name for field in fields(EvalResult) if field.name != "routes"]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names}
    routes = None
    if parts[0].routes is not None:
        seeds = zip(*(part.routes or () for part in parts), strict=True)
        routes = tuple(tuple(route for part in seed for route in part) for seed in seeds)
    return EvalResult(**arrays, routes=routes)

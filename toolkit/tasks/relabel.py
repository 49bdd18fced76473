"""Recorded episodes under a task's own rule: its goal, its reward, its end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolkit.tasks.card import TaskCard
from toolkit.types import BoolArray, Episodes, ToolkitError


def goals_missing(card: TaskCard, episodes: Episodes) -> str:
    """What to say of data without the achieved goals that the task goes by; nothing where it has them."""
    goal, width, own = card.goal_xy, episodes.achieved.shape[1], card.reward.rule == "env"
    if (width or (own and not card.goal.observed)) and (goal is None or width == len(goal)):
        return ""
    return (
        f"task {card.name}: expected data with achieved goals, got {width} numbers; a file holds an array of goals, or "
        "FIRST:END (--achieved, in a pipeline achieved) says which numbers of an observation they are"
    )


def relabel(card: TaskCard, episodes: Episodes, whole: bool = False) -> Episodes:
    """The same motion as episodes of the card's task.

    A task that takes the simulator's own reward takes the recording as it is. Of others a fixed goal replaces the
    recorded one, and a task whose every episode has its own keeps it. An episode ends (`terminated`) on the
    step that enters the goal's radius; what follows starts a new episode at its first row outside. An episode that
    never gets there ends where its recording did (`truncated`). Nothing else survives of recorded rewards and flags.
    With `whole` every episode stays as it was recorded, through the goal and beyond, for goals to be drawn anew: it is
    `terminated` where it ends inside.
    Raises ToolkitError where the data has no goal to go by.
    """
    goal, own = card.goal_xy, card.reward.rule == "env"
    if missing := goals_missing(card, episodes):
        raise ToolkitError(missing)
    if own:
        return episodes
    desired = episodes.desired if goal is None else np.broadcast_to(goal.astype(np.float32), episodes.achieved.shape)
    inside = card.reached(episodes.achieved, desired)  # (R,)
    if whole:
        return _whole(card, replace(episodes, desired=np.ascontiguousarray(desired)), inside)

    first, last = np.zeros_like(inside), np.zeros_like(inside)
    first[episodes.starts[:-1]] = True
    last[episodes.starts[1:] - 1] = True
    before = np.concatenate([[False], inside[:-1]])
    begin = np.flatnonzero(~inside & (first | before))
    stops = np.flatnonzero(inside | last)
    end = stops[np.searchsorted(stops, begin)]  # the row that reaches the goal, or the recording's last
    moved = end > begin
    begin, end = begin[moved], end[moved]

    sizes = end - begin + 1
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = np.repeat(begin - starts[:-1], sizes) + np.arange(starts[-1])
    final, acting = starts[1:] - 1, np.ones(len(rows), np.bool_)
    acting[final] = False
    reward = np.zeros(len(rows), np.float32)
    reward[acting] = card.pay(episodes.achieved, desired)[rows[acting] + 1]
    terminated, truncated = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    terminated[final - 1] = inside[end]
    truncated[final - 1] = ~inside[end]
    return Episodes(
        obs=episodes.obs[rows],
        achieved=episodes.achieved[rows],
        desired=np.ascontiguousarray(desired[rows]),
        action=episodes.action[rows] * acting[:, None],
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        starts=starts,
    )


def _whole(card: TaskCard, episodes: Episodes, inside: BoolArray) -> Episodes:
    """Reward and flags by the card's rule, no episode cut; `inside` (R,) says which rows are at the goal."""
    final = episodes.starts[1:] - 1
    reward = np.roll(card.pay(episodes.achieved, episodes.desired), -1)
    terminated, truncated = np.zeros_like(inside), np.zeros_like(inside)
    reward[final], terminated[final - 1], truncated[final - 1] = 0.0, inside[final], ~inside[final]
    return replace(episodes, reward=reward, terminated=terminated, truncated=truncated)

"""What is wrong, or looks wrong, with recorded data: every rule of `finding` that looks at numbers.

Everything is vectorised over rows; only duplicates are looked for episode by episode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import numpy as np

from toolkit.data.finding import Finding
from toolkit.data.imported import ACTION_SLACK, Imported, acting, at_rows, essential
from toolkit.data.importers.rows import jumps
from toolkit.types import BoolArray, FloatArray, IntArray

ROUNDING = 5e-7  # float32 actions scaled by bounds stay below that
FROZEN = 20  # steps of changing actions in which nothing observed changes
SETTLING = 3  # first steps of an episode in which a simulator's bodies come to rest where they were put
SCALE = 8  # times the usual spread of actions, up or down, that is another scale
_EQUAL = 1e-6  # rewards that differ by less are one
MOST = 50  # findings of one rule that are listed
_SIMULATORS = ("mujoco", "gymnasium", "gymnasium-robotics")


class Judged(NamedTuple):
    """What a task card's rule makes of recorded goals."""

    reward: FloatArray  # (R,) what the card pays in each row
    success: BoolArray  # (R,) rows in which its goal is reached
    arrived: BoolArray  # (R,) rows in which that or the episode's own goal is reached


class Expected(NamedTuple):
    """What a task card says about data recorded for it."""

    env_id: str
    max_steps: int
    judged: Judged | None = None  # None where the simulator alone can judge, or the data has no goals


def audit(imported: Imported, expected: Expected | None = None) -> list[Finding]:
    """All findings, those met while reading first; measured at a task card too where `expected` is given."""
    found = [*imported.findings, *essential(imported)]
    if len(imported.episodes):
        for rule in (_actions, _flags, _motion, _doubles):
            found += rule(imported)
        found += _ends(imported, expected)
        found += _origin(imported, expected)
        found += _rewards(imported, expected.judged if expected else None)
    return _shortened(found)


def _actions(imported: Imported) -> list[Finding]:
    episodes = imported.episodes
    size = np.abs(episodes.action).max(axis=1, initial=0)
    rounded: BoolArray = (size > 1 + ROUNDING) & (size <= 1 + ACTION_SLACK)
    message = "an action just outside the bounds of the action space; it is clipped"
    return at_rows(imported, rounded, "action-rounding", message) + list(_scales(imported))


def _scales(imported: Imported) -> Iterator[Finding]:
    """Episodes whose actions are spread many times as widely as those of the others, or as narrowly."""
    episodes = imported.episodes
    begin, steps = episodes.starts[:-1], episodes.lengths
    squares = np.add.reduceat((episodes.action.astype(np.float64) ** 2).sum(axis=1), begin)
    spread = np.sqrt(squares / steps)
    long = (steps >= 10) & np.isfinite(spread)
    if long.sum() < 5:
        return
    usual = np.median(spread[long])
    odd = long & ((spread > SCALE * usual) | (spread < usual / SCALE)) & (spread > 0)
    for e in np.flatnonzero(odd).tolist():
        times = spread[e] / max(usual, 1e-30)
        yield Finding("action-scale", f"actions {times:.3g} times as large as usual", int(imported.source.numbers[e]))


def _flags(imported: Imported) -> list[Finding]:
    episodes = imported.episodes
    both: BoolArray = episodes.terminated & episodes.truncated
    open_end = np.zeros_like(both)
    last = episodes.starts[1:] - 2
    open_end[last] = ~(episodes.terminated[last] | episodes.truncated[last])
    return at_rows(imported, both, "both-flags", "terminated and truncated; no value follows") + at_rows(
        imported, open_end, "no-end-flag", "the last step is neither terminated nor truncated; it counts as truncated"
    )


def _motion(imported: Imported) -> list[Finding]:
    episodes = imported.episodes
    seen = episodes.achieved if episodes.achieved.shape[1] else episodes.obs
    rows, moving = len(seen), acting(episodes.starts)
    far = np.zeros(rows, np.bool_)
    far[:-1] = jumps(seen, (moving & ~_beginning(episodes.starts))[:-1])
    zero: BoolArray = ~episodes.obs.any(axis=1) & (episodes.obs.shape[1] > 1)
    still = np.zeros(rows, np.bool_)
    still[:-1] = (episodes.obs[1:] == episodes.obs[:-1]).all(axis=1) & moving[:-1]
    changing = np.zeros(rows, np.bool_)
    changing[1:] = (episodes.action[1:] != episodes.action[:-1]).any(axis=1)
    return [
        *at_rows(imported, far, "jump", "moves many times farther than usual; two recordings may be joined here"),
        *at_rows(imported, zero, "zero-row", "an observation of zeros only"),
        *at_rows(imported, _long_runs(still, changing), "frozen", f"nothing observed changes for {FROZEN} steps"),
    ]


def _beginning(starts: IntArray) -> BoolArray:
    """Rows of the first SETTLING steps of each episode, (R,)."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts)) < SETTLING


def _long_runs(still: BoolArray, changing: BoolArray) -> BoolArray:
    """First rows of runs of at least FROZEN marked rows through which actions go on changing."""
    edges = np.diff(np.concatenate([[0], still.astype(np.int8), [0]]))
    begin, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    changes = np.concatenate([[0], np.cumsum(changing)])
    long = (end - begin >= FROZEN) & (changes[end] - changes[begin] >= FROZEN // 2)
    marked = np.zeros(len(still), np.bool_)
    marked[begin[long]] = True
    return marked


def _doubles(imported: Imported) -> list[Finding]:
    """Episodes that are an earlier one again, to the last bit; the same way to another goal is another episode."""
    episodes, numbers = imported.episodes, imported.source.numbers
    rows = np.concatenate([episodes.obs, episodes.achieved, episodes.desired, episodes.action], axis=1)
    first: dict[bytes, int] = {}
    found = []
    for e, (begin, end) in enumerate(zip(episodes.starts[:-1].tolist(), episodes.starts[1:].tolist(), strict=True)):
        earlier = first.setdefault(rows[begin:end].tobytes(), e)
        if earlier != e:
            found.append(Finding("duplicate", f"the same as episode_{numbers[earlier]}", int(numbers[e])))
    return found


def _ends(imported: Imported, expected: Expected | None) -> Iterator[Finding]:
    """Episodes longer than the time limit, and those that only ran into it but are said to have terminated."""
    episodes, numbers = imported.episodes, imported.source.numbers
    recorded = imported.source.max_steps
    limit = recorded or (expected.max_steps if expected else None)
    last, steps = episodes.starts[1:] - 2, episodes.lengths
    if limit:
        for e in np.flatnonzero(steps > limit).tolist():
            yield Finding("time-limit", f"{steps[e]} steps, expected at most {limit}", int(numbers[e]), int(limit))
    longest = int(limit or steps.max())
    suspicious = episodes.terminated[last] & (steps == longest)
    if expected is not None and expected.judged is not None:
        suspicious &= ~expected.judged.arrived[last]
    else:  # what pays no better than an ordinary step is hardly a success
        suspicious &= episodes.reward[last] <= np.median(episodes.reward[acting(episodes.starts)])
    if suspicious.sum() >= 2:
        message = f"terminated after just the {longest} steps of the time limit, without success"
        for e in np.flatnonzero(suspicious).tolist():
            yield Finding("terminal-timeout", message, int(numbers[e]), longest - 1)


def _origin(imported: Imported, expected: Expected | None) -> Iterator[Finding]:
    source = imported.source
    if expected is not None and source.env_id is not None and source.env_id != expected.env_id:
        yield Finding("env-id", f"recorded in {source.env_id}, the task card has {expected.env_id}")
    for name in _SIMULATORS:
        if name in source.versions and (installed := _installed(name)) != source.versions[name]:
            yield Finding("version", f"recorded with {name} {source.versions[name]}, installed is {installed}")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _rewards(imported: Imported, judged: Judged | None) -> Iterator[Finding]:
    episodes = imported.episodes
    moving = acting(episodes.starts)
    if judged is not None:
        if not judged.success.any():
            yield Finding("no-success", "no episode reaches the goal of the task card")
        offset = (episodes.reward - judged.reward)[moving]
        shift = float(np.median(offset))
        everywhere = (np.abs(offset - shift) < _EQUAL).mean() > 0.9  # not just other goals
        if imported.source.rewarded and abs(shift) > _EQUAL and everywhere:
            yield Finding("reward-shift", f"recorded rewards are the task card's plus {shift:.6g}")
    elif imported.source.rewarded and not episodes.terminated.any() and not np.ptp(episodes.reward[moving]):
        yield Finding("no-success", "nothing terminates and every step pays the same")


def shared(parts: Sequence[list[Finding]]) -> list[Finding]:
    """The findings of all parts of a recording; what is said of a whole one only where it is said of every part."""
    of_whole = [[finding for finding in part if finding.episode is None and finding.cases == 1] for part in parts]
    everywhere = set.intersection(*({finding.rule for finding in part} for part in of_whole))
    found = [finding for finding in of_whole[0] if finding.rule in everywhere]
    return _shortened(found + [one for part in parts for one in part if one.episode is not None or one.cases > 1])


def _shortened(found: list[Finding]) -> list[Finding]:
    """At most MOST findings of each rule, and one that stands for the others."""
    listed: Counter[str] = Counter()
    kept: list[Finding] = []
    for finding in found:
        if finding.cases == 1 and listed[finding.rule] < MOST:
            listed[finding.rule] += 1
            kept.append(finding)
    left = Counter({rule: -count for rule, count in listed.items()})
    for finding in found:
        left[finding.rule] += finding.cases
    return kept + [Finding(rule, f"and {more} more episodes", cases=more) for rule, more in left.items() if more]

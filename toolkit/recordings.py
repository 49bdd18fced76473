"""Recorded data from file to file: open it, check it against a task card, describe, join, divide and write it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit import __version__
from toolkit.data import exporters
from toolkit.data.audit import Expected, Judged, audit
from toolkit.data.finding import Finding
from toolkit.data.imported import Imported, Source, acting, checked, count_ends
from toolkit.data.importers import detect, read_data
from toolkit.data.importers.options import Options, columns, goals, pair
from toolkit.data.minari import PART, dataset_path, minari_parts, read_metadata
from toolkit.data.minari_writer import free_path
from toolkit.tasks import TaskCard, goals_missing, make_env, relabel, unseen_env
from toolkit.tasks.actions import Scaled
from toolkit.types import BoolArray, Episodes, IntArray, Json, ToolkitError

Target = Literal["minari", "ogbench", "d4rl"]

_DEPTH = 6  # folders below a root in which data sets are looked for
_counted: dict[str, tuple[int, int, int]] = {}  # what `_widths` knows, by the card as JSON


def find_data(name: str, root: Path) -> Path:
    """The path of that name, or else the Minari data set of that id below `root`."""
    path = Path(name)
    if not (path.exists() or path.suffix or path.is_absolute() or ".." in path.parts):
        path = dataset_path(name, root)
    if not path.exists():
        raise ToolkitError(f"{name}: expected a data set, found nothing; see `toolkit data list {root}`")
    return path


def open_data(name: str, root: Path, format: str | None = None, options: Options | None = None) -> Imported:
    """A data set by path or by id below `root`, in any format that is known. Raises ToolkitError."""
    return read_data(find_data(name, root), format, options)


def reading(
    card: TaskCard | None,
    achieved: str | None = None,
    bounds: str | None = None,
    part: str | None = None,
    trust_pickle: bool = False,
) -> Options:
    """How to read what a file leaves open, from the words of a user and from the task's simulator.

    `achieved` is FIRST:END and `bounds` LOW,HIGH; without those actions lie in the simulator's own bounds, without a
    card between -1 and 1. Raises ToolkitError.
    """
    (low, high), choices = _actions(card)
    limits = pair(bounds) if bounds else (low, high)
    return Options(limits, bool(bounds), choices, columns(achieved) if achieved else None, part, trust_pickle)


def _actions(card: TaskCard | None) -> tuple[tuple[npt.ArrayLike, npt.ArrayLike], int | None]:
    """The bounds of a simulator's actions, and how many they are where they are choices."""
    if card is None or (card.in_maze and card.directions is None):  # every maze's robot has -1 and 1
        return (-1.0, 1.0), None
    with contextlib.closing(unseen_env(card)) as env:
        return (env.actions.bounds, None) if isinstance(env.actions, Scaled) else ((-1.0, 1.0), env.actions.dim)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A Minari data set, read anew each time that it is gone through, with one part at a time in memory."""

    folder: Path
    achieved: slice | None

    def __iter__(self) -> Iterator[Imported]:
        return (goals(part, self.achieved) for part in minari_parts(self.folder, PART))


def open_parts(path: Path, options: Options | None = None) -> Iterable[Imported]:
    """A data set in parts that may be gone through more than once; only one of Minari has several."""
    options = options or Options()
    return _Parts(path, options.achieved) if detect(path) == "minari" else [read_data(path, options=options)]


def read_places(dataset: Path) -> Episodes:
    """The episodes of a Minari data set without what is seen and done, which is most of it."""
    return merge([without_motion(checked(part)) for part in minari_parts(dataset, PART)])


def without_motion(episodes: Episodes) -> Episodes:
    """Places, goals, rewards and ends alone; observations and actions have no numbers."""
    nothing = np.zeros((len(episodes.reward), 0), np.float32)
    return dataclasses.replace(episodes, obs=nothing, action=nothing)


def check(imported: Imported, card: TaskCard | None = None) -> list[Finding]:
    """What the audit finds, measured at a task card too where one is given, and at its goals if the data has any."""
    if card is None:
        return audit(imported)
    unfit = misfit(imported.episodes, card)
    judged = None if unfit else _judged(imported.episodes, card)
    found = audit(imported, Expected(card.env_id, card.max_episode_steps, judged))
    return [Finding("task-shape", unfit), *found] if unfit else found


def misfit(episodes: Episodes, card: TaskCard) -> str:
    """How the widths of rows differ from the task's, or that goals are missing; nothing where all fit."""
    own = card.reward.rule == "env" and not card.goal.observed
    found = {"observations": episodes.obs, "actions": episodes.action, "goals": episodes.achieved}
    for (name, rows), width in zip(found.items(), _widths(card), strict=True):
        if rows.shape[1] != width and not (name == "goals" and (own or not rows.shape[1])):
            return f"task {card.name} has {name} of {width} numbers; got {rows.shape[1]}"
    return goals_missing(card, episodes)


def _widths(card: TaskCard) -> tuple[int, int, int]:
    """Numbers of an observation, an action and a goal in a task, whose simulator is made only once to count them."""
    key = card.model_dump_json()
    if key not in _counted:
        with contextlib.closing(unseen_env(card)) as env:
            sizes = env.sizes
            _counted[key] = sizes.obs_dim - sizes.goal_dim, sizes.action_dim, env.achieved_dim
    return _counted[key]


def _judged(episodes: Episodes, card: TaskCard) -> Judged | None:
    """What the card's rule makes of each row; None where it takes rewards as they come, or the data has no goals."""
    goal, width = card.goal_xy, episodes.achieved.shape[1]
    if card.reward.rule == "env" or not width or (goal is not None and len(goal) != width):
        return None
    desired = episodes.desired if goal is None else np.broadcast_to(goal.astype(np.float32), episodes.achieved.shape)
    success, arrived = np.zeros((2, len(episodes.reward)), np.bool_)
    reward = np.zeros_like(episodes.reward)
    success[:-1] = card.reached(episodes.achieved, desired)[1:]  # a step is paid for where it leads
    arrived[:-1] = card.reached(episodes.achieved, episodes.desired)[1:]
    reward[:-1] = card.pay(episodes.achieved, desired)[1:]
    success &= acting(episodes.starts)
    return Judged(reward, success, success | arrived)


def listed(root: Path) -> list[Json]:
    """Every Minari data set below `root` by id, with what its metadata says. Links are not followed."""
    found = []
    for depth in range(1, _DEPTH):
        for file in sorted(root.glob("/".join(["[!.]*"] * depth + ["data", "metadata.json"]))):
            folder = file.parents[1]
            if any(parent.is_symlink() for parent in (folder, *folder.parents) if parent.is_relative_to(root)):
                continue
            entry: Json = {"id": folder.relative_to(root).as_posix(), "path": str(folder)}
            try:
                metadata = read_metadata(folder)
            except ToolkitError as error:
                found.append({**entry, "error": str(error)})
                continue
            for key in ("total_episodes", "total_steps", "dataset_size", "description"):
                value = metadata.get(key)
                sayable = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
                entry[key] = value if sayable else None  # NaN and infinity are no JSON
            found.append(entry)
    return sorted(found, key=lambda entry: str(entry["id"]))


def describe(imported: Imported, episodes: Episodes, card: TaskCard | None = None) -> Json:
    """Shape, lengths, returns and ends of `episodes`, with where they come from.

    With a card that says what success is, its share too.
    """
    success, about = succeeded(episodes, card), imported.source.summary()
    if success is not None:
        recorded = imported.episodes
        about["ends"] = count_ends(episodes)
        about["notes"] += [
            f"under the task's rule; recorded were {len(recorded)} episodes, {recorded.transitions} transitions, and "
            "steps at the goal are left out"
        ]
    return {
        **about,
        "episodes": len(episodes),
        "transitions": episodes.transitions,
        "observation": episodes.obs.shape[1],
        "goal": episodes.achieved.shape[1],
        "action": episodes.action.shape[1],
        "length": _spread(episodes.lengths),
        "return": returns(episodes),
        "success_share": None if success is None else float(success.mean()),
    }


def succeeded(episodes: Episodes, card: TaskCard | None) -> BoolArray | None:
    """Which episodes end in success, (E,); None without a card that says what that is, since an end may be a fall."""
    return episodes.ended if card is not None and card.reward.rule != "env" else None


def returns(episodes: Episodes) -> Json:
    """The least, middle, largest and mean return of an episode."""
    return _spread(episodes.returns)


def _spread(values: Any) -> Json:
    low, median, high = np.quantile(values, [0, 0.5, 1]).tolist()
    return {"min": low, "median": median, "max": high, "mean": float(np.mean(values))}


def provenance(command: str, sources: Sequence[Source]) -> Json:
    """How a data set came about, for its metadata."""
    told = [source.summary() for source in sources]
    return {"version": __version__, "command": command, "of": [s["path"] for s in told], "sources": told}


def merge(parts: Sequence[Episodes]) -> Episodes:
    """All episodes, one part after the other. Raises ToolkitError where their widths differ."""
    shapes = [tuple(getattr(part, key).shape[1] for key in ("obs", "achieved", "action")) for part in parts]
    if len(set(shapes)) > 1:
        raise ToolkitError(f"merge: expected data sets of one width (observation, goal, action), got {shapes}")
    offsets = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    keys = ("obs", "achieved", "desired", "action", "reward", "terminated", "truncated")
    joined = {key: np.concatenate([getattr(part, key) for part in parts]) for key in keys}
    return Episodes(**joined, starts=np.concatenate([*starts, offsets[-1:]]).astype(np.int64))


def choose(
    episodes: Episodes, span: str | None = None, share: float | None = None, success: bool | None = None, seed: int = 0
) -> IntArray:
    """Indices of some episodes: `span` FIRST:END, a random `share`, those that terminate or do not; all that are named.

    Raises ToolkitError where none is left, or none left out.
    """
    chosen = np.ones(len(episodes), np.bool_)
    if span is not None:
        first, colon, end = span.partition(":")
        if not colon or not all(not text or text.isdecimal() for text in (first, end)):
            raise ToolkitError(f"--episodes {span}: expected FIRST:END, such as 0:100; either may be left out")
        place = np.arange(len(episodes))
        chosen &= (place >= int(first or 0)) & (place < int(end or len(episodes)))
    if success is not None:
        chosen &= episodes.ended == success
    if share is not None:
        left = np.flatnonzero(chosen)
        kept = np.random.default_rng(seed).permutation(left)[: round(share * len(left))]
        chosen = np.isin(np.arange(len(episodes)), kept)
    if not chosen.any() or chosen.all():
        raise ToolkitError(f"split: {int(chosen.sum())} of {len(episodes)} episodes are chosen; expected some, not all")
    return np.flatnonzero(chosen)


def relabelled(episodes: Episodes, card: TaskCard) -> Episodes:
    """The episodes under the card's rule. Raises ToolkitError where that leaves none."""
    made = relabel(card, episodes)
    if not len(made):
        raise ToolkitError(f"task {card.name}: no episode has a step outside of its goal")
    return made


def free(names: Sequence[str], root: Path, replace: bool) -> None:
    """Raises ToolkitError where one of the ids is malformed, taken, or inside another: before the first is written."""
    for outer, inner in combinations(sorted(names), 2):
        if f"{inner}/".startswith(f"{outer}/"):
            raise ToolkitError(f"{inner}: expected another name for each data set, and none inside another")
    for name in names:
        free_path(name, root, replace)


def write(
    parts: Iterable[Episodes],
    out: str,
    root: Path,
    *,
    to: Target = "minari",
    made: Json,
    card: TaskCard | None = None,
    replace: bool = False,
) -> Path:
    """Write episodes in a format; `made` says how they came about. For Minari `out` is an id below `root`, and one part
    at a time is asked for.

    The environment's specification is the card's where one is given: what a file said about it is not passed on.
    Other formats get actions in the bounds of the card's simulator, without one in [-1, 1], and say which.
    """
    if to != "minari":
        export = exporters.to_ogbench if to == "ogbench" else exporters.to_d4rl
        return export(merge(list(parts)), Path(out), _actions(card)[0], replace)
    spec = None if card is None else make_env(card).env_spec.to_json()
    description = f"{made['command']} of {', '.join(made['of'])}"
    metadata = {"description": description, "toolkit": made}
    return exporters.to_minari(parts, out, root, env_spec=spec, metadata=metadata, replace=replace)
